"""Simulate another scanner: noise, kernel, slice thickness, field of view, calibration, contrast medium, table.

Each function takes a CT in HU and returns a new one; none changes its argument. Random functions take a
`numpy.random.Generator`, so equal seeds give equal voxels. `rescan` applies all of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift.body import body_mask, lung_mask
from meddift.errors import OptionsError
from meddift.geometry import as_type
from meddift.volume import Volume
from meddift_lab.synthetic.profiles import smoothing_gain
from meddift_lab.synthetic.table import table_hounsfield

#: Full width at half maximum of a Gaussian over its standard deviation: 2 sqrt(2 ln 2).
FWHM_PER_SIGMA = 2.3548200450309493


def add_noise(volume: Volume, generator: np.random.Generator, *, std_hu: float, correlation_mm: float = 1.5) -> Volume:
    """Add spatially correlated Gaussian noise of a given standard deviation, as in reconstructed CT.

    Args:
        volume: (X, Y, Z), HU.
        generator: Source of randomness.
        std_hu: Standard deviation of the noise after smoothing, HU.
        correlation_mm: Full width at half maximum of the smoothing; 0 is white noise, and widths below a voxel
            are close to it.

    Returns:
        Volume of float32.
    """
    from scipy import ndimage

    if not (std_hu >= 0 and correlation_mm >= 0):
        raise OptionsError(f"noise needs std_hu >= 0 and correlation_mm >= 0, got {std_hu} and {correlation_mm}")
    noise = generator.standard_normal(volume.data.shape, dtype=np.float32)
    factor = 1.0
    for axis, sigma in enumerate(correlation_mm / FWHM_PER_SIGMA / volume.grid.spacing):
        if sigma > 0.1:
            noise = ndimage.gaussian_filter1d(noise, sigma, axis=axis, mode="wrap", truncate=4)
            factor *= smoothing_gain(float(sigma))
    return Volume(volume.data.astype(np.float32) + noise * np.float32(std_hu / factor), volume.grid)


def blur(volume: Volume, *, fwhm_mm: float) -> Volume:
    """Simulate a smoother reconstruction kernel by a Gaussian filter.

    Args:
        volume: (X, Y, Z), HU.
        fwhm_mm: Full width at half maximum of the Gaussian.

    Returns:
        Volume of float32.
    """
    from scipy import ndimage

    if not fwhm_mm >= 0:
        raise OptionsError(f"fwhm_mm must be at least 0, got {fwhm_mm}")
    sigma = fwhm_mm / FWHM_PER_SIGMA / volume.grid.spacing
    smoothed = ndimage.gaussian_filter(volume.data.astype(np.float32), sigma, mode="nearest", truncate=3)
    return Volume(smoothed, volume.grid)


def sharpen(volume: Volume, *, amount: float, fwhm_mm: float = 3.0) -> Volume:
    """Simulate a sharper reconstruction kernel by unsharp masking.

    Args:
        volume: (X, Y, Z), HU.
        amount: Factor of the difference between the scan and its blurred copy, which is added.
        fwhm_mm: Full width at half maximum of the Gaussian blur.

    Returns:
        Volume of float32.
    """
    soft = blur(volume, fwhm_mm=fwhm_mm).data
    hounsfield = volume.data.astype(np.float32)
    return Volume(hounsfield + np.float32(amount) * (hounsfield - soft), volume.grid)


def change_thickness(volume: Volume, *, thickness_mm: float) -> Volume:
    """Change the slice thickness along the axis closest to head-feet; each new slice averages what it covers.

    Args:
        volume: (X, Y, Z), HU.
        thickness_mm: Desired thickness. The extent is kept exactly, so the actual thickness is that of the
            closest whole number of contiguous slices.

    Returns:
        Volume of float32 on the grid with the new spacing; no slice is made thinner than it was.
    """
    if not thickness_mm > 0:
        raise OptionsError(f"thickness_mm must be positive, got {thickness_mm}")
    axis = next(i for i, letter in enumerate(volume.grid.orientation) if letter in "SI")
    old = volume.grid.shape[axis]
    new = int(np.clip(round(float(volume.grid.extent[axis]) / thickness_mm), 1, old))
    shape = [new if a == axis else n for a, n in enumerate(volume.grid.shape)]
    faces = np.linspace(0, old, new + 1)
    voxels = np.arange(old)
    overlap = np.minimum(faces[1:, None], voxels + 1) - np.maximum(faces[:-1, None], voxels)
    weights = np.maximum(overlap, 0)
    weights = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    moved = np.moveaxis(volume.data.astype(np.float32), axis, -1) @ weights.T
    return Volume(np.ascontiguousarray(np.moveaxis(moved, -1, axis)), volume.grid.resized(shape))


def crop_field_of_view(
    volume: Volume,
    *,
    left: float = 0.0,
    right: float = 0.0,
    posterior: float = 0.0,
    anterior: float = 0.0,
    inferior: float = 0.0,
    superior: float = 0.0,
) -> Volume:
    """Crop the scan by the given mm on each side of the patient, rounded to whole voxels.

    At least one voxel is kept along each axis.
    """
    amount = {"L": left, "R": right, "P": posterior, "A": anterior, "I": inferior, "S": superior}
    if any(not mm >= 0 for mm in amount.values()):
        raise OptionsError(f"a field of view can only be cropped by 0 mm or more, got {amount}")
    opposite = {"L": "R", "R": "L", "P": "A", "A": "P", "I": "S", "S": "I"}
    start, shape = [], []
    for letter, spacing, n in zip(volume.grid.orientation, volume.grid.spacing, volume.grid.shape, strict=True):
        first = min(round(amount[opposite[letter]] / spacing), n - 1)
        last = max(n - round(amount[letter] / spacing), first + 1)
        start.append(first)
        shape.append(last - first)
    return volume.cropped(start, shape)


def change_calibration(volume: Volume, *, scale: float = 1.0, offset_hu: float = 0.0) -> Volume:
    """Simulate a miscalibrated scanner: attenuation (HU + 1000) times `scale`, plus `offset_hu`; float32."""
    hounsfield = volume.data.astype(np.float32)
    return Volume((hounsfield + 1000) * np.float32(scale) - 1000 + np.float32(offset_hu), volume.grid)


def change_enhancement(volume: Volume, *, boost_hu: float, lungs: Volume | None = None) -> Volume:
    """Simulate more (or, if negative, less) contrast medium in blood, approximately.

    Changes the HU of soft tissue between and inside the lungs (heart, great and pulmonary vessels); fat, bone
    and the chest wall are unchanged. Blood is not segmented, so muscle of the mediastinum changes with it.

    Args:
        volume: (X, Y, Z), HU.
        boost_hu: HU added to blood.
        lungs: Result of `lung_mask` for `volume`; computed if `None`. Without lungs nothing changes.

    Returns:
        Volume of float32.
    """
    from scipy import ndimage

    mask = (lung_mask(volume) if lungs is None else lungs).reoriented("RAS")
    upright = volume.reoriented("RAS")
    region = np.logical_or.accumulate(mask.data, axis=0) & np.logical_or.accumulate(mask.data[::-1], axis=0)[::-1]
    region &= (
        np.logical_or.accumulate(mask.data, axis=1) & np.logical_or.accumulate(mask.data[:, ::-1], axis=1)[:, ::-1]
    )
    weight = ndimage.gaussian_filter(region.astype(np.float32), 4.0 / upright.grid.spacing, truncate=2)
    hounsfield = upright.data.astype(np.float32)
    # The weight rises from fat to blood and falls again towards bone.
    soft = np.clip((hounsfield + 40) / 60, 0, 1) * np.clip((400 - hounsfield) / 150, 0, 1)
    raised = Volume(hounsfield + np.float32(boost_hu) * weight * soft, upright.grid)
    return Volume(raised.reoriented(volume.grid.orientation).data, volume.grid)


def replace_table(volume: Volume, *, gap_mm: float = 3.0, body: Volume | None = None) -> Volume:
    """Remove the table and everything else outside the patient, and add another table.

    Args:
        volume: (X, Y, Z), HU.
        gap_mm: Distance from the lowest point of the back to the table.
        body: Result of `body_mask` for `volume`; computed if `None`. Without a body nothing changes.

    Returns:
        Volume with the dtype of `volume.data`.
    """
    from scipy import ndimage

    mask = body_mask(volume) if body is None else body
    if not mask.data.any():
        return volume
    # The threshold of the mask cuts through the skin: dilate by 4 mm to keep all of it.
    reach = np.ceil(4.0 / volume.grid.spacing).astype(int)
    near = ndimage.maximum_filter(mask.data.view(np.uint8), size=tuple(2 * reach + 1)).astype(bool)
    indices = np.argwhere(mask.data[::2, ::2, ::2]) * 2
    if len(indices) == 0:
        indices = np.argwhere(mask.data)
    world = volume.grid.index_to_world(indices)
    middle = (world[:, 0].min() + world[:, 0].max()) / 2
    table = table_hounsfield(volume.grid, top_y=float(world[:, 1].min()) - gap_mm, middle_x=float(middle))
    return Volume(as_type(np.where(near, volume.data, table), volume.data.dtype), volume.grid)


def rescan(
    volume: Volume,
    *,
    seed: int,
    noise_std_hu: float | None = None,
    noise_correlation_mm: float | None = None,
    kernel: float | None = None,
    thickness_mm: float | None = None,
    crop_mm: float | None = None,
    calibration_std_hu: float = 6.0,
    boost_hu: float | None = None,
    table: bool = True,
) -> Volume:
    """Simulate the same scan on another scanner; differences that are not given are drawn from the seed.

    Order: table, contrast, slice thickness, kernel, noise, calibration, field of view.

    Args:
        volume: CT in HU.
        seed: Equal seeds and options give equal voxels.
        noise_std_hu: Standard deviation of the added noise; `None` draws 8 to 30 HU.
        noise_correlation_mm: Correlation of the noise, see `add_noise`; `None` draws 1 to 2.5 mm.
        kernel: Above 0 the `amount` of `sharpen`, below 0 minus the `fwhm_mm` of `blur`; `None` draws -1.8 to 0.7.
        thickness_mm: Slice thickness, never smaller than that of `volume`; `None` draws 1 to 5 mm.
        crop_mm: Largest random amount that is cropped on each side; `None` draws up to 25 mm.
        calibration_std_hu: Standard deviation of the HU offset; 0 for none.
        boost_hu: HU added to blood, see `change_enhancement`; `None` draws 0 for half of the seeds, else up to 120 HU.
        table: Whether the table is replaced, see `replace_table`.

    Returns:
        Volume of int16 within [-1024, 3071] HU.
    """
    generator = np.random.default_rng(seed)
    # All numbers are drawn, used or not, so that setting one option does not change the values of the others.
    drawn_noise, drawn_width = generator.uniform(8, 30), generator.uniform(1.0, 2.5)
    drawn_kernel, drawn_thickness = generator.uniform(-1.8, 0.7), generator.uniform(1.0, 5.0)
    drawn_boost = generator.uniform(20, 120) if generator.uniform() < 0.5 else 0.0
    sides = generator.uniform(0, 1, 6) * (generator.uniform(0, 25) if crop_mm is None else crop_mm)
    calibration = generator.normal(0, 1, 2) * calibration_std_hu
    gap = generator.uniform(1, 8)

    strength = float(drawn_kernel if kernel is None else kernel)
    boost = float(drawn_boost if boost_hu is None else boost_hu)
    scan = replace_table(volume, gap_mm=float(gap)) if table else volume
    if boost:
        scan = change_enhancement(scan, boost_hu=boost)
    scan = change_thickness(scan, thickness_mm=float(drawn_thickness if thickness_mm is None else thickness_mm))
    if strength > 0:
        scan = sharpen(scan, amount=strength)
    elif strength < 0:
        scan = blur(scan, fwhm_mm=-strength)
    scan = add_noise(
        scan,
        generator,
        std_hu=float(drawn_noise if noise_std_hu is None else noise_std_hu),
        correlation_mm=float(drawn_width if noise_correlation_mm is None else noise_correlation_mm),
    )
    scan = change_calibration(scan, scale=1 + float(calibration[1]) / 1000, offset_hu=float(calibration[0]))
    names = ("left", "right", "posterior", "anterior", "inferior", "superior")
    scan = crop_field_of_view(scan, **{name: float(mm) for name, mm in zip(names, sides, strict=True)})
    return Volume(as_stored(scan.data), scan.grid)


def as_stored(hounsfield: NDArray[np.floating]) -> NDArray[np.int16]:
    """Round HU and clip them to -1024..3071, the range of 12-bit CT; int16 of the same shape."""
    return np.asarray(np.clip(np.rint(hounsfield), -1024, 3071).astype(np.int16))


__all__ = [
    "add_noise",
    "as_stored",
    "blur",
    "change_calibration",
    "change_enhancement",
    "change_thickness",
    "crop_field_of_view",
    "replace_table",
    "rescan",
    "sharpen",
]
