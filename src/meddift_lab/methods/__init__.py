"""The compared methods, which share one protocol: fixed scan, moving scan, fixed points -> moving points.

Importing this package loads none of them; each is imported only in the process that runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meddift.system.lazy import lazy_names

if TYPE_CHECKING:
    from meddift_lab.methods.answer import Method
    from meddift_lab.methods.registry import METHODS, find_methods

#: Public name -> module that defines it.
_HOME = {
    "METHODS": "meddift_lab.methods.registry",
    "Method": "meddift_lab.methods.answer",
    "find_methods": "meddift_lab.methods.registry",
}

__all__ = ["METHODS", "Method", "find_methods"]

__getattr__, __dir__ = lazy_names(__name__, _HOME, __all__)
