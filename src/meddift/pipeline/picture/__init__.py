"""Pictures as matplotlib Figures: matches, and a registration. Writing them is the caller's: `save_picture`."""

from meddift.pipeline.picture.matches import choose_rows, draw_matches
from meddift.pipeline.picture.registration import draw_registration
from meddift.pipeline.picture.style import save_picture

__all__ = ["choose_rows", "draw_matches", "draw_registration", "save_picture"]
