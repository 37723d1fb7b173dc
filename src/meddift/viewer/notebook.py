"""`pair.view()`: the viewer of a pair, inline in a notebook or in the browser."""

from __future__ import annotations

import tempfile
import webbrowser
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from meddift.points import Points
from meddift.viewer.desk import side_points
from meddift.viewer.opening import pair_session
from meddift.viewer.server import LOOPBACK, Server
from meddift.viewer.sheet import Row

if TYPE_CHECKING:
    from meddift.pipeline.pair import Pair


class View:
    """A pair that is shown; made by `Pair.view`. The last line of a notebook's cell shows it inline.

    Args:
        server: Already started.
        height: Of the frame in a notebook, pixels.
    """

    def __init__(self, server: Server, *, height: int) -> None:
        self._server, self._height = server, height

    def __repr__(self) -> str:
        """How to see it; the address holds the token, so it is shown only where it is asked for."""
        return "View(shown in notebooks; .open() shows it in the browser, .address is what to open)"

    @property
    def address(self) -> str:
        """What to open in a browser; whoever has it can see the scans."""
        return self._server.address

    @property
    def rows(self) -> tuple[Row, ...]:
        """The list of points as it stands now."""
        return self._server.session.sheet.rows

    @property
    def points(self) -> tuple[Points, Points]:
        """Points on the fixed and on the moving scan, world RAS mm; NaN where a point has no place there."""
        return side_points(self.rows, "fixed"), side_points(self.rows, "moving")

    def open(self) -> None:
        """Show it in the browser."""
        webbrowser.open(self.address)

    def close(self) -> None:
        """Stop showing it."""
        self._server.close()

    def _repr_html_(self) -> str:
        """A frame, for notebooks, under the name by which the notebook is reached, or the cookie is not sent."""
        address, name = self.address, self._server.address_at("localhost")
        script = (
            f"if(location.hostname==='localhost')document.currentScript.previousElementSibling.src='{escape(name)}'"
        )
        return (
            f'<iframe src="{escape(address)}" title="meddift viewer" width="100%" height="{self._height}" '
            f'style="border:0"></iframe><script>{script}</script>'
        )


def view_pair(pair: Pair, *, points: Points | None = None, out: Path | str | None = None, height: int = 760) -> View:
    """Show a pair; see `Pair.view`."""
    folder = Path(tempfile.mkdtemp(prefix="meddift-view-")) if out is None else Path(out)
    session = pair_session(pair.fixed, pair.moving, folder, points=points)
    return View(Server(session, host=LOOPBACK, framed=True).start(), height=height)
