"""Estimating and removing the noise of a real scan.

When a synthetic pair is made from one scan, noise that is deformed along with the anatomy would give a method texture
to match that a second scan of the patient would not show. The noise is therefore removed before the deformation, and
independent noise is added to both scans.
"""

from __future__ import annotations

import numpy as np

from meddift.body import body_mask
from meddift.errors import OptionsError
from meddift.volume import Volume

#: Half width of the windows in which noise is measured, mm.
WINDOW_MM = 4.0
#: Range of HU of soft tissue that is mostly homogeneous: fat, muscle, blood, organs.
SOFT_HU = (-150.0, 150.0)
#: Percentile of the variances in windows of soft tissue that is taken as the variance of the noise.
FLATTEST_PERCENT = 10.0
#: Least number of soft-tissue windows from which noise is estimated.
LEAST_VOXELS = 500
#: Differences between neighbours well above this many standard deviations of the noise are kept as edges. The factor
#: is large because the level is estimated in the most homogeneous tissue; elsewhere, as between the shoulders, the
#: noise is stronger.
EDGE = 4.0
#: Windows are evaluated at every (n // LOOKED_AT)-th voxel along an axis of n voxels, at least at every voxel.
LOOKED_AT = 160


def noise_level(volume: Volume, *, body: Volume | None = None) -> float:
    """Estimate the standard deviation of the noise in soft tissue.

    The estimate is the lowest decile of the standard deviations in windows of about 10 mm within the body: the most
    homogeneous windows, in fat, muscle or an organ, contain little but noise. This also holds for spatially correlated
    noise. Texture of tissue counts as noise.

    Args:
        volume: (X, Y, Z), CT in HU.
        body: Result of `body_mask` for `volume`; computed if `None`.

    Returns:
        Standard deviation in HU; 0 for a scan with hardly any soft tissue.
    """
    from scipy import ndimage

    mask = (body_mask(volume) if body is None else body).data
    thinned = tuple(slice(None, None, max(1, n // LOOKED_AT)) for n in volume.grid.shape)
    hounsfield = volume.data.astype(np.float32)
    size = _size(volume)
    mean = ndimage.uniform_filter(hounsfield, size, mode="nearest")
    variance = ndimage.uniform_filter(np.square(hounsfield), size, mode="nearest") - np.square(mean)
    soft = mask[thinned] & (mean[thinned] > SOFT_HU[0]) & (mean[thinned] < SOFT_HU[1])
    if soft.sum() < LEAST_VOXELS:
        return 0.0
    return float(np.sqrt(max(float(np.percentile(variance[thinned][soft], FLATTEST_PERCENT)), 0.0)))


def remove_noise(volume: Volume, *, std_hu: float, steps: int = 8) -> Volume:
    """Remove most of the noise of a scan by edge-preserving smoothing.

    The anisotropic diffusion of P. Perona and J. Malik (Scale-space and edge detection using anisotropic diffusion,
    1990): in every step each voxel exchanges HU with its six neighbours, weighted by `exp(-(d / (4 std))^2)` where d
    is their difference. Noise is largely removed in homogeneous tissue and less so on vessels, which keep their
    contrast. The range of the smoothing is a number of voxels: on a finer grid, where correlated noise extends over
    more voxels, more of it remains.

    Args:
        volume: (X, Y, Z), CT in HU.
        std_hu: Standard deviation of its noise, HU; 0 leaves the scan unchanged.
        steps: Number of diffusion steps; in homogeneous tissue they act like a Gaussian filter with a standard
            deviation of sqrt(2 steps / 7) voxels.

    Returns:
        Volume of float32 on the same grid.

    Raises:
        OptionsError: if `std_hu` or `steps` is negative.
    """
    if not (std_hu >= 0 and steps >= 0):
        raise OptionsError(f"noise is taken out with std_hu >= 0 and steps >= 0, got {std_hu} and {steps}")
    hounsfield = volume.data.astype(np.float32)
    if std_hu == 0:
        return Volume(hounsfield, volume.grid)
    scale = np.float32(-1 / (EDGE * std_hu) ** 2)
    for _ in range(steps):
        change = np.zeros_like(hounsfield)
        for axis in range(3):
            flow = np.diff(hounsfield, axis=axis)
            # A step size of 1/7 is below the stability limit of 1/6 for six neighbours.
            flow *= np.exp(np.square(flow) * scale) / np.float32(7)
            lower, upper = [slice(None)] * 3, [slice(None)] * 3
            lower[axis], upper[axis] = slice(0, -1), slice(1, None)
            change[tuple(lower)] += flow
            change[tuple(upper)] -= flow
        hounsfield += change
    return Volume(hounsfield, volume.grid)


def _size(volume: Volume) -> tuple[int, ...]:
    """Size of the window along each axis in voxels, odd and at least 3."""
    half = np.maximum(np.rint(WINDOW_MM / volume.grid.spacing), 1).astype(int)
    return tuple(int(n) for n in 2 * half + 1)
