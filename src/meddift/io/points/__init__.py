"""Points in and out, in the formats that the field uses; in memory they are always world RAS mm."""

from meddift.io.points.content import Frame, PointsFile
from meddift.io.points.reading import describe_points, looks_like_flipped, parse_points_file, read_points
from meddift.io.points.writing import PointsFormat, format_points, what_is_lost, write_points

__all__ = [
    "Frame",
    "PointsFile",
    "PointsFormat",
    "describe_points",
    "format_points",
    "looks_like_flipped",
    "parse_points_file",
    "read_points",
    "what_is_lost",
    "write_points",
]
