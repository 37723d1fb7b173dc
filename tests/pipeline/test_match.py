"""Matching where the truth is known: one smooth world, scanned before and after a known transform.

The only level is MIND, which needs no weights. Each scan is read from the world by cubic splines, so the truth is
exact and nothing is resampled twice.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys

import numpy as np
import pytest

from meddift.errors import OptionsError, PointsError
from meddift.features import whiten_pair
from meddift.geometry import AffineTransform, DisplacementField, Grid
from meddift.io import write_transform
from meddift.pipeline import Matcher, Options
from meddift.pipeline.direction import Direction
from meddift.points import Points
from meddift.volume import Volume
from texture import lattice, scan

SHIFT = np.array([3.7, -2.3, 4.9])
#: Small radius and few neighbours keep the tests fast; the search is the same.
NEAR = {"search_radius_mm": 9.0}


def matcher(**options):
    options = {"levels": ("mind",), "store": False, "device": "cpu", **options}
    return Matcher("builtin", **options)


def shifted(shift):
    matrix = np.eye(4)
    matrix[:3, 3] = shift
    return AffineTransform(matrix)


def bent():
    """Turned by 3 degrees, stretched by up to 4 %, shifted by 9 mm."""
    angle = np.radians(3)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([1.04, 0.97, 1.02])
    matrix[:3, 3] = [5.3, -6.1, 4.4]
    return AffineTransform(matrix)


FIXED = lattice((44, 40, 42))
MOVING = lattice((42, 44, 40), center=(2.0, -3.0, 1.0))


@pytest.fixture(scope="module", autouse=True)
def _fewer_landmarks():
    """These scans are small, and the prior needs less than for a patient."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meddift.pipeline.starts.PRIOR_POINTS", 100)
        yield


@pytest.fixture(scope="module")
def fixed():
    return scan(FIXED)


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(1).uniform(-24, 24, (16, 3))


def errors(matches, truth):
    return np.linalg.norm(matches.moving.positions - truth, axis=1)


# ---------------------------------------------------------------------- accuracy under every prior


@pytest.fixture(scope="module")
def moved(fixed):
    return scan(MOVING, shifted(-SHIFT))


@pytest.fixture(scope="module")
def default_pair(fixed, moved):
    return matcher().pair(fixed, moved)


def test_a_shift_between_voxels_is_found_without_being_told_anything(default_pair, points):
    matches = default_pair.match(points)
    assert errors(matches, points + SHIFT).max() < 0.2
    assert matches.ok.all()
    assert matches.inverse_error_mm.max() < 0.1
    assert (matches.margin > 0.02).all()
    # The prior alone, fitted to what was matched, is right to about a voxel.
    assert np.linalg.norm(default_pair.prior.apply(points) - points - SHIFT, axis=1).max() < 2.5


@pytest.mark.parametrize("kind", ["identity", "none", "transform", "field", "file"])
def test_a_shift_is_found_under_every_prior(kind, fixed, moved, points, tmp_path):
    rough = SHIFT + np.array([1.5, -1.0, 1.2])  # what the user knows is not exact
    field = DisplacementField(np.broadcast_to(rough[:, None, None, None], (3, 5, 5, 5)), lattice((5, 5, 5), (20,) * 3))
    if kind == "file":
        write_transform(field, tmp_path / "prior.nii.gz")
    options = {
        "identity": {"prior": "identity", "search_radius_mm": 12.0},
        "none": {"prior": "none"},
        "transform": {"prior": shifted(rough), **NEAR},
        "field": {"prior": field, **NEAR},
        "file": {"prior": str(tmp_path / "prior.nii.gz"), **NEAR},
    }[kind]
    matches = matcher(**options).pair(fixed, moved).match(points)
    assert errors(matches, points + SHIFT).max() < 0.3
    assert (matches.inverse_error_mm < 0.5).all()
    assert matches.ok.mean() > 0.6
    # Inside so small a ball no rival is far enough away to be of much use; nothing else speaks against any match.
    assert all("almost as similar" in reason for reason in matches.reason if reason)


def test_an_affine_is_found(fixed, points):
    true = bent()
    pair = matcher().pair(fixed, scan(MOVING, true.inverted()))
    matches = pair.match(points)
    away = errors(matches, true.apply(points))
    assert np.median(away) < 0.15
    assert away.max() < 0.4
    assert matches.ok.all()
    np.testing.assert_allclose(pair.prior.affine.matrix[:3, :3], true.matrix[:3, :3], atol=0.04)


def test_noise_of_either_scan_is_averaged_away_between_voxels(points, monkeypatch):
    """The last stage of a search compares many neighbours: in noisy scans it comes closer than the stage before."""
    generator = np.random.default_rng(7)
    true = bent()

    def noisy(volume):
        return Volume(volume.data + generator.normal(0, 90, volume.grid.shape).astype(np.float32), volume.grid)

    pair = matcher(search_radius_mm=20.0).pair(noisy(scan(FIXED)), noisy(scan(MOVING, true.inverted())))
    away = errors(pair.match(points), true.apply(points))
    monkeypatch.setattr(Direction, "_between_voxels", lambda self, positions, found, prior: found)
    before = errors(pair.match(points), true.apply(points))
    assert away.mean() < 0.8 * before.mean()


def test_anisotropic_voxels_are_found_in_mm(points):
    """Fixed 1.4 x 2.6 x 2, moving 2.4 x 1.5 x 3 mm, both resampled to the model's 2 mm before they are compared."""
    fixed = scan(lattice((62, 32, 42), (1.4, 2.6, 2.0)))
    moving = scan(lattice((36, 58, 28), (2.4, 1.5, 3.0)), shifted(-SHIFT))
    matches = matcher(prior="identity", **NEAR).pair(fixed, moving).match(points)
    assert np.median(errors(matches, points + SHIFT)) < 0.3
    assert errors(matches, points + SHIFT).max() < 0.8


# ---------------------------------------------------------------------- what has no answer is said to have none


def test_points_that_are_nowhere_get_no_answer(default_pair, points):
    asked = Points(
        np.vstack([points[:2], [[300, 0, 0], [np.nan] * 3, [0, 0, -43.0]]]), ("a", "b", "far", "lost", "just outside")
    )
    matches = default_pair.match(asked)
    assert matches.verdict == ("ok", "ok", "outside", "outside", "outside")
    assert matches.moving.labels == asked.labels
    np.testing.assert_array_equal(matches.moving.missing, [False, False, True, True, True])
    assert np.isnan(matches.similarity[2:]).all()
    assert "outside the fixed scan" in matches.reason[2]
    assert "no position" in matches.reason[3]
    only_lost = default_pair.match(Points([[np.nan] * 3], ("lost",)))
    assert only_lost.verdict == ("outside",)
    with pytest.raises(PointsError, match="no points"):
        default_pair.match(np.zeros((0, 3)))


def test_air_around_the_patient_is_not_matched(fixed, moved, points):
    data = fixed.data.copy()
    data[:12] = -1000
    matches = matcher(prior="identity", **NEAR).pair(Volume(data, fixed.grid), moved).match([[-37, 0, 0], points[0]])
    assert matches.verdict[0] == "outside"
    assert "air" in matches.reason[0]
    assert matches.moving.missing[0]
    assert not matches.moving.missing[1]


def test_gas_inside_the_body_is_asked_for_like_tissue(fixed, moved):
    """A bubble of 16 mm in both scans: its middle has no tissue within the reach of the test for air."""
    middle = np.array([2.0, 1.0, -3.0])
    scans = []
    for volume, shift in ((fixed, 0.0), (moved, SHIFT)):
        away = np.linalg.norm(volume.grid.voxel_centers() - middle - shift, axis=-1)
        data = np.where(away < 16, -1000, volume.data)
        # The air around the patient, on the side from which the scan is open.
        data[:4] = -1000
        scans.append(Volume(data.astype(np.float32), volume.grid))
    matches = matcher(prior="identity", **NEAR).pair(*scans).match([middle, fixed.grid.index_to_world([0.4, 20, 20])])
    assert matches.verdict[0] != "outside"
    assert np.isfinite(matches.moving.positions[0]).all()
    assert matches.verdict[1] == "outside"
    assert "air around the patient" in matches.reason[1]


@pytest.mark.parametrize("options", [{}, {"prior": "identity", **NEAR}, {"prior": shifted(SHIFT), **NEAR}])
def test_what_lies_beyond_the_moving_scan_is_never_put_on_its_border(fixed, options):
    """The moving scan ends at z = 0 (in the fixed world); up to the search radius from there nobody can be certain."""
    grid = lattice((44, 44, 22), center=(*SHIFT[:2], -22.0 + SHIFT[2]))
    pair = matcher(**options).pair(fixed, scan(grid, shifted(-SHIFT)))
    generator = np.random.default_rng(3)
    depth = np.array([2.0, 4.0, 5.5, 7.0, 9.0, 12.0, 16.0, 22.0, 30.0, 38.0])
    beyond = np.column_stack([generator.uniform(-24, 24, (10, 2)), depth])
    inside = np.column_stack([generator.uniform(-20, 20, (6, 2)), np.linspace(-24, -15, 6)])
    matches = pair.match(np.vstack([beyond, inside]))
    assert "ok" not in matches.verdict[:10], list(zip(depth, matches.verdict[:10], matches.reason[:10], strict=True))
    far = depth > (6.5 + (0 if not options or options["prior"] != "identity" else SHIFT[2]) + (9 if options else 0))
    assert far.sum() >= 3
    assert set(np.array(matches.verdict[:10])[far]) == {"outside"}
    assert matches.moving.missing[:10][far].all()
    assert "field of view" in matches.reason[9]
    assert matches.ok[10:].all()
    assert errors(matches, np.vstack([beyond, inside]) + SHIFT)[10:].max() < 0.6


@pytest.mark.parametrize(
    "replacement",
    ["another world", pytest.param("noise", marks=pytest.mark.slow), pytest.param("air", marks=pytest.mark.slow)],
)
def test_what_was_cut_out_of_the_moving_scan_is_never_called_found(fixed, moved, replacement):
    """A ball of 18 mm radius is replaced; points well inside it have no counterpart."""
    middle = np.array([2.0, 1.0, -3.0])
    away = np.linalg.norm(MOVING.voxel_centers() - middle - SHIFT, axis=-1)
    other = {
        "another world": scan(MOVING, seed=7).data,
        "noise": np.random.default_rng(0).normal(0, 250, MOVING.shape).astype(np.float32),
        "air": np.full(MOVING.shape, -1000, dtype=np.float32),
    }[replacement]
    spoilt = Volume(np.where(away < 18, other, moved.data), MOVING)
    generator = np.random.default_rng(5)
    lost = generator.normal(size=(40, 3))
    lost = middle + lost / np.linalg.norm(lost, axis=1, keepdims=True) * generator.uniform(0, 10, (40, 1))
    matches = matcher().pair(fixed, spoilt).match(lost)
    assert not matches.ok.any(), [f"{e:.1f}" for e in errors(matches, lost + SHIFT)[matches.ok]]


def test_even_tissue_does_not_fix_a_place(fixed, moved):
    """Nothing but noise for 24 mm around: wherever such a point is put, that is not called ok."""
    middle, generator = np.array([2.0, 1.0, -3.0]), np.random.default_rng(3)
    scans = []
    for volume, shift in ((fixed, 0.0), (moved, SHIFT)):
        away = np.linalg.norm(volume.grid.voxel_centers() - middle - shift, axis=-1)
        even = generator.normal(40, 10, volume.grid.shape)
        scans.append(Volume(np.where(away < 24, even, volume.data).astype(np.float32), volume.grid))
    asked = middle + generator.uniform(-4, 4, (20, 3))
    matches = matcher().pair(*scans).match(asked)
    assert not matches.ok.any()
    assert any("too little to see" in reason or "fit badly" in reason for reason in matches.reason)


def test_unrelated_scans_give_nothing_that_is_ok(fixed, points):
    matches = matcher().pair(fixed, scan(MOVING, seed=7)).match(points)
    assert not matches.ok.any()
    assert "brought into agreement" in matches.reason[0]
    noise = np.random.default_rng(0).normal(0, 250, MOVING.shape).astype(np.float32)
    assert not matcher().pair(fixed, Volume(noise, MOVING)).match(points).ok.any()


# ---------------------------------------------------------------------- the same question, the same answer


def test_a_repeated_match_gives_the_same_answers_to_the_bit(default_pair, fixed, moved, points):
    first, second = default_pair.match(points), default_pair.match(points)
    anew = matcher().pair(fixed, moved).match(points)
    for other in (second, anew):
        for name in ("similarity", "margin", "inverse_error_mm"):
            np.testing.assert_array_equal(getattr(first, name), getattr(other, name))
        np.testing.assert_array_equal(first.moving.positions, other.moving.positions)
        assert first.rows() == other.rows()


@pytest.mark.parametrize("prior", ["affine", "none", "field"])
def test_neither_order_nor_number_of_points_changes_an_answer(prior, fixed, moved, points):
    """To rounding: sums over channels are taken in an order that may depend on how many points are asked at once."""
    if prior == "field":  # no closed inverse: matching back must not look at other points
        generator = np.random.default_rng(4)
        displacement = SHIFT[:, None, None, None] + generator.uniform(-1.5, 1.5, (3, 7, 7, 7))
        prior = DisplacementField(displacement, lattice((7, 7, 7), (15,) * 3))
    asked = np.vstack([points[:5], points[:3] + np.array([0, 0, 6.0]), points[:1] + 0.4])
    pair = matcher(prior=prior, **({} if isinstance(prior, str) else NEAR)).pair(fixed, moved)
    together = pair.match(asked)
    order = np.random.default_rng(0).permutation(len(asked))
    shuffled = pair.match(asked[order])
    for row, place in enumerate(order):
        alone = pair.match(asked[place : place + 1])
        for other, at in ((shuffled, row), (alone, 0)):
            np.testing.assert_allclose(other.moving.positions[at], together.moving.positions[place], atol=1e-3)
            np.testing.assert_allclose(other.inverse_error_mm[at], together.inverse_error_mm[place], atol=2e-3)
            np.testing.assert_allclose(other.similarity[at], together.similarity[place], atol=1e-6)
            assert other.verdict[at] == together.verdict[place]


def test_stored_features_give_the_same_answers_as_fresh_ones(fixed, moved, points, tmp_path):
    expected = matcher(prior="identity", **NEAR).pair(fixed, moved).match(points)
    for _ in range(2):
        found = matcher(store=tmp_path, prior="identity", **NEAR).pair(fixed, moved).match(points)
        np.testing.assert_array_equal(found.moving.positions, expected.moving.positions)
        np.testing.assert_array_equal(found.similarity, expected.similarity)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2


def test_files_give_the_same_answers_as_arrays(fixed, moved, points, tmp_path):
    import nibabel
    import SimpleITK

    nibabel.save(nibabel.Nifti1Image(fixed.data, fixed.grid.affine), tmp_path / "a.nii.gz")
    image = SimpleITK.GetImageFromArray(moved.data.T)
    to_lps = np.array([-1.0, -1.0, 1.0])
    image.SetOrigin(moved.grid.origin * to_lps)
    image.SetDirection((moved.grid.direction * to_lps[:, None]).ravel())
    image.SetSpacing(moved.grid.spacing)
    SimpleITK.WriteImage(image, tmp_path / "b.nrrd")
    near = matcher(prior="identity", **NEAR)
    found = near.pair(tmp_path / "a.nii.gz", str(tmp_path / "b.nrrd")).match(points)
    expected = near.pair(fixed, moved).match(points)
    np.testing.assert_allclose(found.moving.positions, expected.moving.positions, atol=0.01)


# ---------------------------------------------------------------------- maps


def test_the_similarity_map_is_the_brute_force_and_its_top_is_the_match(fixed, moved, points):
    pair = matcher(prior="none", refine=False, confidence=False).pair(fixed, moved)
    matches = pair.match(points[:4])
    scans = whiten_pair(*pair.encode(), levels=["mind"])
    ours, theirs = (pyramid.level("mind") for pyramid in scans)
    unit = theirs.features / np.linalg.norm(theirs.features, axis=-1, keepdims=True)
    for row, point in enumerate(points[:4]):
        heat = pair.similarity(point)
        descriptor = Volume(np.moveaxis(ours.features, -1, 0), ours.grid).at(point[None])[:, 0]
        expected = unit @ (descriptor / np.linalg.norm(descriptor))
        np.testing.assert_allclose(heat.data, expected, atol=1e-5)
        top = np.unravel_index(heat.data.argmax(), heat.data.shape)
        np.testing.assert_allclose(heat.grid.index_to_world(top), matches.moving.positions[row], atol=1e-9)
        assert matches.similarity[row] == pytest.approx(heat.data.max(), abs=1e-6)
        assert heat.grid.same_as(theirs.grid)


@pytest.mark.parametrize("bad", [[500.0, 0, 0], [np.nan] * 3, [[0, 0, 0], [1, 1, 1]]])
def test_a_map_needs_one_point_inside(bad, default_pair):
    with pytest.raises(PointsError, match="one point"):
        default_pair.similarity(bad)


# ---------------------------------------------------------------------- what is said about it


def test_provenance_is_json(default_pair, points):
    default_pair.match(points[:1])
    told = json.loads(json.dumps(default_pair.provenance))
    assert told["images"]["fixed_sha256"] == default_pair.fixed.volume.digest()
    assert told["extraction"]["levels"] == ["mind"]
    assert told["space"] == "RAS"
    for prior in (shifted(SHIFT), "some/file.h5"):
        json.dumps(Options(prior=prior).describe())
    assert json.loads(json.dumps(default_pair.match(points).rows()))[0]["verdict"] == "ok"


def test_what_reading_changed_stands_in_the_provenance(fixed, moved):
    tilted = Volume(fixed.data, fixed.grid, notes=("the gantry was tilted by 12 degrees",))
    told = matcher().pair(tilted, moved).provenance["reading"]
    assert told == {"fixed": ["the gantry was tilted by 12 degrees"], "moving": []}


def test_progress_goes_forward(fixed, moved, points):
    told = []
    matcher(prior="none", on_progress=lambda text, share: told.append((text, share))).pair(fixed, moved).match(points)
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1
    assert all(text for text, _ in told)


def test_a_plan_reads_no_weights_and_loads_no_network():
    """In a fresh interpreter: MONAI, which takes seconds, stays away, and so does PyTorch."""
    program = """
import sys, numpy as np
from meddift.geometry import Grid
from meddift.volume import Volume
from meddift.pipeline import Matcher
volume = Volume(np.zeros((60, 50, 40), np.int16), Grid((60, 50, 40), np.diag([1.5, 1.5, 3, 1])))
plan = Matcher("maisi-ct-ddpm", "paper").plan(volume, volume, 12)
import json; json.dumps(plan)
assert plan["points"] == 12 and plan["memory_bytes"] > 5e8, plan
assert "128x128x128" in plan["fixed"]["network"], plan
assert not {"monai", "SimpleITK"} & set(sys.modules), "heavy modules"
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "options",
    [
        {"preset": "fast"},
        {"timestep": 1000},
        {"timestep": -1},
        {"levels": ()},
        {"levels": ("up9",)},
        {"levels": ("mind", "mind")},
        {"noise_samples": -1},
        {"latent": "median"},
        {"spacing": "wide"},
        {"search_grid": "coarse"},
        {"seed": -3},
        {"seed": 1.5},
        {"search_radius_mm": 0.0},
        {"search_radius_mm": -4.0},
        {"search_radius_mm": float("nan")},
        {"prior": "none", "search_radius_mm": 9.0},
        {"prior": 3},
        {"device": "gpu"},
        {"device": "cuda:x"},
        {"device": "cuda:99"},
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_read(options):
    with pytest.raises(OptionsError):
        Matcher("builtin", **options)


def test_every_option_is_a_keyword_of_the_matcher_of_the_same_type():
    keywords = {name: each.annotation for name, each in inspect.signature(Matcher.__init__).parameters.items()}
    for field in dataclasses.fields(Options):
        if field.name == "preset":
            continue
        wanted = {part.strip() for part in str(field.type).split("|")} - {"None"}
        given = {part.strip() for part in keywords[field.name].split("|")} - {"None"}
        # A sequence will do where a tuple is kept, and a path may be text.
        assert wanted - {"tuple[str, ...]"} <= given, field.name


def test_options_left_out_are_those_of_the_preset():
    assert Options.for_preset("paper", seed=None) == Options.for_preset("paper")
    assert Options.for_preset("paper").prior == "none"
    assert Options.for_preset("paper").digest() != Options().digest()
    assert Options(seed=1).digest() != Options().digest()
    assert Options(prior=shifted(SHIFT)).digest() != Options(prior=shifted(2 * SHIFT)).digest()


def test_priors_that_differ_anywhere_are_different_options():
    grid = Grid((9, 9, 9), np.diag([9.0, 9, 9, 1]))
    fields = [np.zeros((3, 9, 9, 9)) for _ in range(2)]
    fields[1][0, 4, 4, 4] = 2.0  # in the middle, which a printed array leaves out
    first, second = (Options(prior=DisplacementField(field, grid)).digest() for field in fields)
    assert first != second
    inverse, other = (Options(prior=DisplacementField(field, grid).inverted()).digest() for field in fields)
    assert len({first, second, inverse, other}) == 4
