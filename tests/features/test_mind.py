"""MIND-SSC against a version written with loops, and its invariances."""

import itertools

import numpy as np
import pytest
from fake_model import make_scan
from scipy.ndimage import gaussian_filter

from meddift.errors import ImageError, OptionsError
from meddift.features import mind_level
from meddift.features.mind import _RUN, _SLAB_VOXELS
from meddift.geometry import Grid
from meddift.volume import Volume


def volume(shape=(7, 6, 5), seed: int = 0) -> Volume:
    data = np.random.default_rng(seed).random(shape).astype(np.float32)
    return Volume(data, Grid(shape, np.diag([2.0, 2.0, 2.0, 1.0])))


def by_loops(image: np.ndarray, radius: int, dilation: int) -> np.ndarray:
    """(X, Y, Z, 12), straight from the definition; channels sorted at each voxel, since their order is free."""
    neighbours = [np.array(offset) for offset in itertools.product((-1, 0, 1), repeat=3) if np.abs(offset).sum() == 1]
    pairs = [(a, b) for a, b in itertools.combinations(neighbours, 2) if np.isclose(np.linalg.norm(a - b), np.sqrt(2))]
    assert len(pairs) == 12
    patch = [np.array(offset) for offset in itertools.product(range(-radius, radius + 1), repeat=3)]

    def value(position):
        return float(image[tuple(np.clip(position, 0, np.array(image.shape) - 1))])

    distances = np.zeros((*image.shape, 12))
    for voxel in np.ndindex(image.shape):
        for channel, (a, b) in enumerate(pairs):
            one, two = np.array(voxel) + dilation * a, np.array(voxel) + dilation * b
            distances[(*voxel, channel)] = np.mean([(value(one + p) - value(two + p)) ** 2 for p in patch])
    distances -= distances.min(axis=-1, keepdims=True)
    variance = distances.mean(axis=-1)
    variance = np.clip(variance, variance.mean() / 1000, variance.mean() * 1000)
    return np.exp(-distances / variance[..., None])


@pytest.mark.parametrize(("radius", "dilation"), [(1, 1), (0, 1), (1, 2), (0, 3)])
def test_it_agrees_with_the_definition_written_as_loops(radius, dilation):
    scan = volume((5, 4, 4))
    level = mind_level(scan, radius=radius, dilations=(dilation,), smoothing=0)
    assert level.channels == 12
    assert level.grid == scan.grid
    truth = by_loops(scan.data, radius, dilation)
    np.testing.assert_allclose(np.sort(level.features, axis=-1), np.sort(truth, axis=-1), atol=1e-5)


def test_each_channel_is_the_same_pair_everywhere():
    scan = volume((5, 4, 4))
    truth = by_loops(scan.data, 1, 1).reshape(-1, 12)
    found = mind_level(scan, dilations=(1,), smoothing=0).matrix
    distance = np.abs(found[:, :, None] - truth[:, None, :]).max(axis=0)
    assert sorted(distance.argmin(axis=1)) == list(range(12))
    assert distance.min(axis=1).max() < 1e-5


def test_float16_is_the_same_rounded():
    scan = volume((9, 8, 7))
    whole, rounded = mind_level(scan), mind_level(scan, numbers="float16")
    assert rounded.nbytes == whole.nbytes / 2
    np.testing.assert_array_equal(rounded.values, whole.features.astype(np.float16))


def test_dilations_lie_side_by_side():
    scan = volume()
    both = mind_level(scan, dilations=(1, 2))
    for first, dilation in ((0, 1), (12, 2)):
        alone = mind_level(scan, dilations=(dilation,))
        np.testing.assert_array_equal(both.features[..., first : first + 12], alone.features)


@pytest.mark.parametrize("sigma", [0.3, 0.7, 1.5])
@pytest.mark.parametrize("shape", [(9, 8, 7), (40, 3, 2), (1, 2, 9)])
def test_smoothing_is_that_of_scipy_and_does_not_depend_on_slabs(sigma, shape, monkeypatch):
    scan = volume(shape)
    raw = mind_level(scan, dilations=(1,), smoothing=0).features
    truth = np.stack(
        [gaussian_filter(raw[..., c].astype(np.float64), sigma, mode="nearest", truncate=3.0) for c in range(12)], -1
    )
    for voxels, run in ((1, 1), (1000, 1), (1000, 3), (10**9, 1000)):
        monkeypatch.setitem(_SLAB_VOXELS, "cpu", voxels)
        monkeypatch.setitem(_RUN, "cpu", run)
        found = mind_level(scan, dilations=(1,), smoothing=sigma).features
        np.testing.assert_allclose(found, truth, atol=1e-6)


def test_slabs_leave_no_trace(monkeypatch):
    scan = volume((20, 9, 8))
    whole = mind_level(scan).features
    monkeypatch.setitem(_SLAB_VOXELS, "cpu", 100)
    np.testing.assert_allclose(mind_level(scan).features, whole, atol=1e-6)


def test_brightness_and_contrast_do_not_matter():
    scan = volume()
    other = Volume(scan.data * 0.25 + 3.0, scan.grid)
    np.testing.assert_allclose(mind_level(other).features, mind_level(scan).features, atol=2e-4)
    inverted = Volume(1.0 - scan.data, scan.grid)
    np.testing.assert_allclose(mind_level(inverted).features, mind_level(scan).features, atol=1e-4)


def test_the_same_tissue_has_the_same_descriptor_wherever_it_lies():
    whole = Volume(make_scan().data.astype(np.float32), make_scan().grid)
    part = whole.cropped((4, 3, 2), (20, 18, 15))
    one, two = mind_level(whole).features[4:24, 3:21, 2:17], mind_level(part).features
    inner = (slice(6, -6),) * 3
    # Only the clamp of the variance knows the rest of the scan, and here it does not bite.
    np.testing.assert_allclose(two[inner], one[inner], atol=1e-4)


def test_a_constant_scan_has_the_same_descriptor_everywhere():
    level = mind_level(Volume(np.full((5, 6, 7), -1000, dtype=np.int16), Grid((5, 6, 7), np.eye(4))))
    np.testing.assert_allclose(level.features, 1.0, atol=1e-6)


def test_values_are_finite_and_at_most_one_with_air_around_the_body():
    data = np.zeros((24, 24, 24), dtype=np.float32)
    data[8:16, 8:16, 8:16] = np.random.default_rng(0).random((8, 8, 8))
    features = mind_level(Volume(data, Grid(data.shape, np.eye(4)))).features
    assert np.isfinite(features).all()
    assert features.min() >= 0
    assert features.max() <= 1 + 1e-6


def test_impossible_input_is_refused():
    scan = volume()
    with pytest.raises(ImageError, match="three axes"):
        mind_level(Volume(np.zeros((2, *scan.data.shape)), scan.grid))
    broken = scan.data.copy()
    broken[1, 1, 1] = np.nan
    with pytest.raises(ImageError, match="NaN"):
        mind_level(Volume(broken, scan.grid))
    for wrong in ({"radius": -1}, {"dilations": ()}, {"dilations": (0,)}, {"smoothing": -0.1}):
        with pytest.raises(OptionsError, match="MIND needs"):
            mind_level(scan, **wrong)


def find_again(fixed: Volume, moving: Volume, shift: np.ndarray, **options) -> np.ndarray:
    """Errors in voxels when voxels of `fixed` are looked for in `moving`, by all voxels within 4 of the truth."""
    one, two = mind_level(fixed, **options).features, mind_level(moving, **options).features
    reach = np.arange(-4, 5)
    window = np.stack(np.meshgrid(reach, reach, reach, indexing="ij"), -1).reshape(-1, 3)
    random, errors = np.random.default_rng(1), []
    for _ in range(150):
        voxel = np.array([random.integers(9, n - 9) for n in one.shape[:3]])
        candidates = voxel + shift + window
        descriptors = two[tuple(candidates.T)]
        cosine = descriptors @ one[tuple(voxel)] / np.linalg.norm(descriptors, axis=1)
        errors.append(np.linalg.norm(candidates[cosine.argmax()] - voxel - shift))
    return np.array(errors)


def test_it_finds_shifted_structure_under_noise_and_another_contrast():
    shape = (36, 34, 32)
    random = np.random.default_rng(0)
    scene = gaussian_filter(random.standard_normal((44, 42, 40)), 1.2)
    scene = (scene / scene.std()).astype(np.float32)
    shift = np.array([2, -3, 1])
    fixed = Volume(scene[4:40, 4:38, 4:36], Grid(shape, np.eye(4)))
    start = 4 - shift
    cut = scene[start[0] : start[0] + 36, start[1] : start[1] + 34, start[2] : start[2] + 32]
    noisy = -0.5 * cut + 0.05 * random.standard_normal(shape).astype(np.float32)
    errors = find_again(fixed, Volume(noisy, fixed.grid), shift)
    assert (errors == 0).mean() > 0.9
