"""A picture of a registration: checkerboard, difference before and after, deformed grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from meddift.geometry import AffineTransform, Grid, Transform
from meddift.pipeline.picture.style import BACKGROUND, FAINT, NOTICE, TEXT, new_figure, window_of
from meddift.registration import Registration
from meddift.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Size of a pixel of the picture, and of the squares of checkerboard and grid, mm.
_PIXEL_MM, _SQUARE_MM, _LINES_MM = 1.5, 30.0, 12.0
#: Name, world axis to the right with its sign, world axis upwards, world axis across. Radiological display.
_PLANES = (("axial", (0, -1), 1, 2), ("coronal", (0, -1), 2, 1), ("sagittal", (1, -1), 2, 0))
_COLUMNS = (
    "fixed",
    "checkerboard, fixed and moving",
    "difference before (shift alone)",
    "difference after",
    "deformation",
)


def draw_registration(fixed: Volume, moving: Volume, registration: Registration) -> Figure:
    """Draw three planes through the middle of the body.

    Args:
        fixed: The fixed scan.
        moving: The moving scan.
        registration: The registration of these scans.

    Returns:
        A matplotlib Figure; `save_picture` writes it.
    """
    seen = registration.supported if registration.supported.data.any() else registration.body
    voxels = np.argwhere(seen.data)
    middle = seen.grid.index_to_world(voxels.mean(axis=0) if len(voxels) else (np.asarray(seen.grid.shape) - 1) / 2)
    shift = np.eye(4)
    shift[:3, 3] = registration.transform.apply(middle[None])[0] - middle
    before = AffineTransform(shift)
    planes = [_Plane(fixed.grid, middle, *plane) for plane in _PLANES]
    window = window_of(fixed)
    heights = [plane.size[1] for plane in planes]
    widest = max(plane.size[0] for plane in planes)
    inch = 2.9 / widest
    figure = new_figure(5 * 2.9 + 0.6, sum(heights) * inch + 0.95, dpi=110)
    figure.set_layout_engine("constrained")
    axes = figure.subplots(3, 5, height_ratios=heights, squeeze=False)
    for row, plane in enumerate(planes):
        here = plane.read(fixed, None)
        straight, moved = plane.read(moving, before), plane.read(moving, registration.transform)
        low, high = window
        board = np.where(plane.board, here, moved)
        images = (here, board, here - straight, here - moved, here)
        for column, image in enumerate(images):
            panel: Axes = axes[row][column]
            panel.set_axis_off()
            differs = column in (2, 3)
            span = (high - low) / 2
            panel.imshow(
                image,
                cmap="RdBu_r" if differs else "gray",
                vmin=-span if differs else low,
                vmax=span if differs else high,
                origin="lower",
                extent=plane.extent,
                alpha=0.55 if column == 4 else 1.0,
            )
            panel.set_facecolor(BACKGROUND)
            if row == 0:
                panel.set_title(_COLUMNS[column], color=TEXT, fontsize=10)
        plane.draw_grid(axes[row][4], registration.transform, before)
        label = {"facecolor": BACKGROUND, "alpha": 0.6, "linewidth": 0, "pad": 1.5}
        axes[row][0].text(
            0.02, 0.97, plane.name, color=TEXT, fontsize=9, transform=axes[row][0].transAxes, va="top", bbox=label
        )
    figure.supxlabel(
        f"radiological display; grid: where straight lines of the fixed scan come to lie in the moving one, without "
        f"the mean shift; folding {100 * registration.folding:.3f} % of the body; {NOTICE}",
        color=FAINT,
        fontsize=8,
    )
    return figure


class _Plane:
    """A slice through a point of the fixed scan that covers the whole scan."""

    def __init__(
        self, grid: Grid, middle: NDArray[np.float64], name: str, rightwards: tuple[int, int], up: int, across: int
    ) -> None:
        self.name = name
        right, sign = rightwards
        self._axes, self._signs, self._across, self._middle = (right, up), (sign, 1), across, middle
        low, high = grid.corners.min(axis=0), grid.corners.max(axis=0)
        spans = [(float(low[a]), float(high[a])) for a in self._axes]
        self.size = (spans[0][1] - spans[0][0] + _PIXEL_MM, spans[1][1] - spans[1][0] + _PIXEL_MM)
        self._lines: list[NDArray[np.floating]] = [np.arange(a, b + _PIXEL_MM / 2, _PIXEL_MM) for a, b in spans]
        if sign < 0:
            self._lines[0] = self._lines[0][::-1]
        self._along = [self._signs[i] * self._lines[i] for i in range(2)]
        self.extent = (
            float(self._along[0][0]), float(self._along[0][-1]), float(self._along[1][0]), float(self._along[1][-1]),
        )  # fmt: skip
        squares = [np.floor((line - line.min()) / _SQUARE_MM).astype(int) for line in self._lines]
        self.board = (squares[1][:, None] + squares[0][None, :]) % 2 == 0

    def world(self, right: NDArray[np.floating], up: NDArray[np.floating]) -> NDArray[np.float64]:
        """(len(up), len(right), 3) float64, world RAS mm, of the pixels at these coordinates."""
        points = np.empty((len(up), len(right), 3))
        points[..., self._axes[0]], points[..., self._axes[1]] = right[None, :], up[:, None]
        points[..., self._across] = self._middle[self._across]
        return points

    def read(self, volume: Volume, transform: Transform | None) -> NDArray[np.float64]:
        """Intensities of a scan in the plane, or in the plane mapped by a transform; NaN outside the scan."""
        world = self.world(*self._lines)
        flat = world.reshape(-1, 3)
        flat = flat if transform is None else transform.apply(flat)
        values = volume.at(flat)
        values[~volume.grid.contains(flat)] = np.nan
        return np.asarray(values.reshape(world.shape[:2]))

    def draw_grid(self, panel: Axes, transform: Transform, shift: AffineTransform) -> None:
        """Draw grid lines of the fixed scan as mapped by the transform, without the mean shift."""
        back = shift.inverted()
        steps = [np.arange(line.min(), line.max() + 1e-6, _LINES_MM) for line in self._lines]
        fine = [np.arange(line.min(), line.max() + 1e-6, 3.0) for line in self._lines]
        for along in (0, 1):
            world = self.world(fine[0], steps[1]) if along == 0 else self.world(steps[0], fine[1])
            moved = back.apply(transform.apply(world.reshape(-1, 3))).reshape(world.shape)
            xs = self._signs[0] * moved[..., self._axes[0]]
            ys = self._signs[1] * moved[..., self._axes[1]]
            for k in range(xs.shape[along]):
                line = (k, slice(None)) if along == 0 else (slice(None), k)
                panel.plot(xs[line], ys[line], color="#ffb000", lw=0.6)
        panel.set_xlim(self.extent[0], self.extent[1])
        panel.set_ylim(self.extent[2], self.extent[3])
