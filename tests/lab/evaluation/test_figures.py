"""Figures of the report draw names as they stand, whatever is in them."""

from __future__ import annotations

import warnings
from xml.etree import ElementTree

import pytest

from meddift_lab.report import figures

NAMES = [r"$\frac{1}{$", "a_$x^2$", "\x1b[31mred", "two\nlines", "\u202eback", "100 % <b> & \\"]


@pytest.mark.parametrize("name", NAMES)
def test_names_are_no_formulas_and_hold_no_control_characters(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of matplotlib: a glyph is missing, a formula cannot be parsed
        drawn = [
            figures.heat_map({(name, name): 1.0, (name, "b"): 2.0}, [name], [name, "b"], "mm"),
            figures.bars([(name, 1.0, 0.5, 1.5), ("b", 2.0, None, None)], "mm", marked="b"),
        ]
    for picture in drawn:
        ElementTree.fromstring(picture)  # control characters are no XML
        assert not any(letter in picture for letter in "\x1b\u202e")
