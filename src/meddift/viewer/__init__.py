"""Viewer: two scans side by side in the browser, with matched points that a person can review and correct.

A local server holds the scans and runs the matcher; a page shows them. Needs the extra `viewer`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift.viewer.app import make_app
    from meddift.viewer.notebook import View, view_pair
    from meddift.viewer.server import Server
    from meddift.viewer.session import Session

#: Public name -> module that defines it. Loaded on first use (PEP 562).
_HOME = {
    "Server": "meddift.viewer.server",
    "Session": "meddift.viewer.session",
    "View": "meddift.viewer.notebook",
    "make_app": "meddift.viewer.app",
    "view_pair": "meddift.viewer.notebook",
}

__all__ = ["Server", "Session", "View", "make_app", "view_pair"]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
