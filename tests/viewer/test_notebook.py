"""`pair.view()`: a frame for notebooks, with a server behind it, and the points that a person has set."""

from __future__ import annotations

import re

import httpx
import numpy as np
from served import SHIFT

from meddift.pipeline import Pair


def test_a_pair_is_shown_in_a_frame_and_gives_its_points_back(encoded, tmp_path) -> None:
    pair = Pair(*encoded, lambda stage, share: None)
    view = pair.view(np.array([[4.0, -6.0, 8.0]]), out=tmp_path / "points")
    try:
        html = view._repr_html_()
        address = re.search(r'src="([^"]+)"', html).group(1)  # type: ignore[union-attr]
        page = httpx.get(address.replace("&amp;", "&"), timeout=60)
        assert page.status_code == 200
        assert "frame-ancestors http://localhost:*" in page.headers["content-security-policy"]
        assert view.address not in repr(view)
        client = httpx.Client(base_url=address.partition("?")[0], cookies=page.cookies, timeout=60)
        fixed, moving = view.points
        np.testing.assert_allclose(fixed.positions, [[4.0, -6.0, 8.0]])
        assert moving.missing.all()
        row = client.get("api/v1/points").json()["points"][0]
        place = (fixed.positions[0] + SHIFT).tolist()
        assert client.patch(f"api/v1/points/{row['id']}", json={"corrected": place}).status_code == 200
        np.testing.assert_allclose(view.points[1].positions, [place], atol=1e-4)
        client.close()
    finally:
        view.close()
