"""The report of an evaluation: one self-contained HTML file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift_lab.report.page import write_report

#: Public name -> module that defines it.
_HOME = {"write_report": "meddift_lab.report.page"}

__all__ = ["write_report"]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
