"""`Pair.view`: the viewer of a pair, inline in a notebook or in the browser."""

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
    """The viewer of a pair; created by `Pair.view`. As last expression of a notebook cell it is shown inline.

    Args:
        server: A server that was started.
        height: Height of the frame in a notebook, pixels.
    """

    def __init__(self, server: Server, *, height: int) -> None:
        self._server, self._height = server, height

    def __repr__(self) -> str:
        """How to open the viewer. The address is left out, since it contains the token."""
        return "View(shown in notebooks; .open() shows it in the browser, .address is what to open)"

    @property
    def address(self) -> str:
        """Address to open in a browser. It contains the token and gives access to the scans."""
        return self._server.address

    @property
    def rows(self) -> tuple[Row, ...]:
        """The current list of points."""
        return self._server.session.sheet.rows

    @property
    def points(self) -> tuple[Points, Points]:
        """Points on the fixed and on the moving scan, world RAS mm; NaN where a point has no position there."""
        return side_points(self.rows, "fixed"), side_points(self.rows, "moving")

    def open(self) -> None:
        """Open the viewer in the browser."""
        webbrowser.open(self.address)

    def close(self) -> None:
        """Stop the server."""
        self._server.close()

    def _repr_html_(self) -> str:
        """A frame for notebooks. Its host name is that of the notebook, otherwise the cookie would not be sent."""
        address, name = self.address, self._server.address_at("localhost")
        script = (
            f"if(location.hostname==='localhost')document.currentScript.previousElementSibling.src='{escape(name)}'"
        )
        return (
            f'<iframe src="{escape(address)}" title="meddift viewer" width="100%" height="{self._height}" '
            f'style="border:0"></iframe><script>{script}</script>'
        )


def view_pair(pair: Pair, *, points: Points | None = None, out: Path | str | None = None, height: int = 760) -> View:
    """Show a pair in the viewer; see `Pair.view`."""
    folder = Path(tempfile.mkdtemp(prefix="meddift-view-")) if out is None else Path(out)
    session = pair_session(pair.fixed, pair.moving, folder, points=points)
    return View(Server(session, host=LOOPBACK, framed=True).start(), height=height)
