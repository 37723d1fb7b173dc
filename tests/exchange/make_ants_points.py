"""ANTs (antspyx) carries a table of points: python make_ants_points.py POINTS.csv TRANSFORM OUT.csv."""

import sys

from ants.internal import get_lib_fn

points, transform, out = sys.argv[1:]
arguments = ["-d", "3", "-f", "1", "--precision", "0", "-i", points, "-o", out, "-t", transform]
sys.exit(get_lib_fn("antsApplyTransformsToPoints")(arguments))
