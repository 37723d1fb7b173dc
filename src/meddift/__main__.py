"""`python -m meddift` is the command `meddift`."""

from meddift.cli import main

main()
