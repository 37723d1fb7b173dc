"""The training scripts are no package: they import each other by name."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = str(Path(__file__).resolve().parents[2] / "training")
if FOLDER not in sys.path:
    sys.path.insert(0, FOLDER)
