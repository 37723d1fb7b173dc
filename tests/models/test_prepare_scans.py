from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meddift.errors import ImageError
from meddift.geometry import Grid
from meddift.models import GridPolicy, Intensity, find_spec, network_grid, prepare_volume
from meddift.models.prepare import Window, resized_128
from meddift.volume import Volume

BUILTIN = find_spec("builtin")
MAISI = find_spec("maisi-ct-ddpm")
#: The 48 ways to name three axes.
ORIENTATIONS = [
    "".join(letters) for order in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*order)
]


def oblique(spacing=(1.3, 0.9, 2.6), angle=0.1) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing)
    affine[:3, 3] = [-31.0, 17.0, 250.0]
    return affine


def scan(shape=(31, 42, 17), affine=None) -> Volume:
    data = np.random.default_rng(1).integers(-1100, 1400, shape).astype(np.int16)
    return Volume(data, Grid(shape, oblique() if affine is None else affine))


@pytest.mark.parametrize("spec", [BUILTIN, MAISI], ids=lambda spec: spec.grid.kind)
def test_all_48_orientations_give_the_same_data_at_the_same_place(spec) -> None:
    given_scan = scan(shape=(12, 15, 9))
    expected = prepare_volume(given_scan, spec)
    # 128^3 voxels each for resize_128, where the turn is undone before anything else: some orientations suffice.
    for orientation in ORIENTATIONS[:: 7 if spec is MAISI else 1]:
        turned = given_scan.reoriented(orientation)
        assert turned.grid.orientation == orientation
        prepared = prepare_volume(turned, spec)
        np.testing.assert_array_equal(prepared.data, expected.data)
        assert prepared.grid.same_as(expected.grid, tolerance_mm=1e-9)


def test_respace_reads_a_linear_field_at_the_right_places() -> None:
    # HU that are linear in world coordinates stay linear under any resampling: a closed form for every voxel.
    grid = Grid((60, 50, 24), oblique(spacing=(0.8, 1.1, 2.7)))
    direction = np.array([3.0, -2.0, 1.5])

    def hounsfield(places: np.ndarray) -> np.ndarray:
        return (places - grid.center) @ direction

    volume = Volume(hounsfield(grid.voxel_centers()).astype(np.float32), grid)
    prepared = prepare_volume(volume, BUILTIN)
    np.testing.assert_allclose(prepared.grid.spacing, 2.0)
    assert all(n % 16 == 0 for n in prepared.grid.shape)
    centers = prepared.grid.voxel_centers()
    inside = grid.contains(centers, margin_mm=4.5)
    assert inside.sum() > 1000
    # Three pieces of the window meet this range; away from its knots it is linear, and the antialiasing exact.
    expected = np.interp(hounsfield(centers), *np.array(BUILTIN.intensity.knots).T)
    away = np.abs(hounsfield(centers)[..., None] - np.array(BUILTIN.intensity.knots)[:, 0]).min(-1) > 15
    np.testing.assert_allclose(prepared.data[inside & away], expected[inside & away], atol=2e-4)
    outside = ~grid.contains(centers, margin_mm=-2.01)
    assert (prepared.data[outside] == 0).all()
    assert outside.any()


def test_respace_keeps_exact_values_where_lattices_coincide() -> None:
    volume = scan(shape=(32, 16, 48), affine=np.diag([2.0, 2.0, 2.0, 1.0]))
    prepared = prepare_volume(volume, BUILTIN)
    assert prepared.grid == volume.grid
    np.testing.assert_allclose(prepared.data, np.interp(volume.data, *np.array(BUILTIN.intensity.knots).T), atol=1e-6)


def test_window_comes_after_resampling() -> None:
    # Metal beside air: averaged in HU it is bright; had it been clamped first, it would not be.
    data = np.full((32, 32, 32), -1000, np.int16)
    data[::2] = 3000
    prepared = prepare_volume(Volume(data, Grid((32, 32, 32), np.eye(4))), BUILTIN)
    inner = prepared.data[2:-2, 2:-2, 2:-2]
    assert inner.min() > np.interp(900, *np.array(BUILTIN.intensity.knots).T)


def test_resize_128_is_torchs_interpolate_of_what_nibabel_calls_canonical() -> None:
    import nibabel
    import torch

    affine = np.array([[0, 0, -2.5, 40], [-1.2, 0, 0, 30], [0, 1.5, 0, -70], [0, 0, 0, 1.0]])
    volume = scan(shape=(40, 36, 22), affine=affine)
    prepared = prepare_volume(volume, MAISI)
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.data, affine))
    values = np.clip((canonical.get_fdata(dtype=np.float32) + 1000) / 2000, 0, 1)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None], size=(128, 128, 128), mode="trilinear", align_corners=False
    )
    np.testing.assert_array_equal(prepared.data, expected[0, 0].numpy())
    # Outer faces stay: voxel j of the new grid is centred at (j + 1/2) * n / 128 - 1/2 of the old one.
    for j in ([0, 0, 0], [127, 3, 64]):
        old = (np.array(j) + 0.5) * np.array(canonical.shape) / 128 - 0.5
        np.testing.assert_allclose(
            prepared.grid.index_to_world(j), nibabel.affines.apply_affine(canonical.affine, old), atol=1e-9
        )


@pytest.mark.parametrize(
    ("length", "expected"),
    [(1, 128), (128, 128), (160, 128), (191, 128), (192, 256), (193, 256), (320, 256), (448, 512), (512, 512)],
)
def test_resized_128_rounds_half_to_even(length: int, expected: int) -> None:
    assert resized_128((length, 128, length)) == (expected, 128, expected)


def test_two_knots_are_monais_intensity_range_to_the_bit() -> None:
    import torch

    from meddift.models.monai_import import monai_autoencoder

    monai_autoencoder()
    from monai.transforms import ScaleIntensityRange

    data = np.linspace(-1500, 1500, 4001, dtype=np.float32).reshape(1, 1, -1)
    theirs = ScaleIntensityRange(-1000, 1000, 0, 1, clip=True)(torch.from_numpy(data)).numpy()
    np.testing.assert_array_equal(Window(MAISI.intensity, data)(torch.from_numpy(data)).numpy(), theirs)


def test_percentiles_are_monais_and_do_not_clip() -> None:
    import torch

    from meddift.models.monai_import import monai_autoencoder

    monai_autoencoder()
    from monai.transforms import ScaleIntensityRangePercentiles

    rule = find_spec("maisi-mr-rflow").intensity
    data = np.random.default_rng(0).gamma(2, 300, (20, 30, 25)).astype(np.float32)
    theirs = ScaleIntensityRangePercentiles(0, 99.5, 0, 1, clip=False)(torch.from_numpy(data)[None])[0].numpy()
    ours = Window(rule, data)(torch.from_numpy(data)).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert ours.max() > 1
    with pytest.raises(ImageError, match="no contrast"):
        Window(rule, np.ones((2, 2, 2)))


@given(
    knots=st.lists(
        st.tuples(st.integers(-2000, 3000), st.floats(0, 1)), min_size=2, max_size=6, unique_by=lambda k: k[0]
    )
)
def test_any_window_is_piecewise_linear_and_clamped(knots) -> None:
    import torch

    rule = Intensity("window", tuple(sorted((float(a), float(b)) for a, b in knots)))
    data = np.linspace(-3000, 4000, 300, dtype=np.float32).reshape(3, 1, -1)
    at, values = np.array(rule.knots).T
    found = Window(rule, data)(torch.from_numpy(data)).numpy()
    np.testing.assert_allclose(found, np.interp(data, at, values), atol=2e-3)


@settings(max_examples=25)
@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.4, 6.0)] * 3),
    angle=st.floats(-0.6, 0.6),
    orientation=st.sampled_from(ORIENTATIONS),
)
def test_the_lattice_is_known_without_the_voxels(shape, spacing, angle, orientation) -> None:
    grid = Grid(shape, oblique(spacing, angle))
    volume = Volume(np.zeros(shape, np.int16), grid).reoriented(orientation)
    prepared = prepare_volume(volume, BUILTIN)
    assert prepared.grid == network_grid(volume.grid, BUILTIN)
    assert prepared.grid.orientation == "RAS"
    assert all(n % BUILTIN.multiple == 0 for n in prepared.grid.shape)
    # The field of view is covered, and the padding is shared between both sides.
    assert prepared.grid.contains(volume.grid.corners).all()
    assert (
        np.abs(prepared.grid.world_to_index(volume.grid.center) - (np.array(prepared.grid.shape) - 1) / 2).max() < 0.51
    )


def test_another_grid_policy_is_padded_to_what_the_network_needs() -> None:
    policy = GridPolicy("respace", spacing_mm=3.0, multiple=1, padding=0.25)
    prepared = prepare_volume(scan(), MAISI, grid_policy=policy)
    assert all(n % 32 == 0 for n in prepared.grid.shape)
    assert prepared.data[0, 0, 0] == 0.25
    assert prepared.grid == network_grid(scan().grid, MAISI, grid_policy=policy)


def test_scans_that_cannot_be_shown_to_a_network_are_refused() -> None:
    grid = Grid((4, 4, 4), np.eye(4))
    with pytest.raises(ImageError, match="one channel"):
        prepare_volume(Volume(np.zeros((2, 4, 4, 4)), grid), BUILTIN)
    broken = np.zeros((4, 4, 4))
    broken[1, 2, 3] = np.nan
    with pytest.raises(ImageError, match="1 voxels of the scan are not finite"):
        prepare_volume(Volume(broken, grid), BUILTIN)
    with pytest.raises(ImageError, match="complex"):
        prepare_volume(Volume(np.zeros((4, 4, 4), complex), grid), BUILTIN)


def test_the_scan_itself_is_not_changed() -> None:
    volume = scan()
    before = volume.data.copy()
    prepare_volume(volume, dataclasses.replace(BUILTIN))
    np.testing.assert_array_equal(volume.data, before)


def patient(orientation: str = "RAS") -> Volume:
    """A body, an arm apart from it and a thin table, in much air."""
    data = np.full((100, 90, 20), -1000, dtype=np.int16)
    x, y = np.meshgrid(np.arange(100), np.arange(90), indexing="ij")
    data[((x - 45) / 25) ** 2 + ((y - 50) / 15) ** 2 < 1] = 40
    data[((x - 82) / 7) ** 2 + ((y - 45) / 7) ** 2 < 1] = 30
    data[10:95, 12] = 200
    return Volume(data, Grid(data.shape, oblique((3.0, 3.0, 5.0)))).reoriented(orientation)


def test_the_body_is_kept_as_it_was_with_its_arms_and_what_lies_close() -> None:
    whole, kept = prepare_volume(patient(), BUILTIN), prepare_volume(patient(), BUILTIN, body=True)
    assert kept.grid.size < 0.8 * whole.grid.size
    first = np.rint(whole.grid.world_to_index(kept.grid.index_to_world([[0, 0, 0]])))[0].astype(int)
    np.testing.assert_allclose(whole.grid.index_to_world([first]), kept.grid.index_to_world([[0, 0, 0]]), atol=1e-6)
    np.testing.assert_array_equal(whole.cropped(first, kept.grid.shape, fill=BUILTIN.grid.padding).data, kept.data)
    tissue = np.argwhere(patient().data[:, 20:] > 0) + np.array([0, 20, 0])
    around = patient().grid.index_to_world(tissue)
    for shift in 10.0 * np.array([[1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0]]):  # slices end along the third axis
        assert kept.grid.contains(around + shift).all()


@pytest.mark.parametrize("orientation", ["LPS", "SAR", "IPL"])
def test_the_same_body_is_kept_however_the_scan_is_stored(orientation: str) -> None:
    plain, turned = (prepare_volume(patient(name), BUILTIN, body=True) for name in ("RAS", orientation))
    assert turned.grid.same_as(plain.grid, tolerance_mm=1e-6)
    np.testing.assert_allclose(turned.data, plain.data, atol=1e-4)


def test_where_air_is_not_known_or_there_is_no_body_all_is_kept() -> None:
    bright = Volume(np.abs(patient().data.astype(np.float32)) + 3000.0, patient().grid)
    empty = Volume(np.full((40, 40, 12), -1000, dtype=np.int16), Grid((40, 40, 12), oblique()))
    for volume in (bright, empty):
        assert prepare_volume(volume, BUILTIN, body=True).grid == prepare_volume(volume, BUILTIN).grid
