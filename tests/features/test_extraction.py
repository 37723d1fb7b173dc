"""Extraction, with a model whose features are known exactly."""

import dataclasses
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from fake_model import FakeModel, make_scan

from meddift.errors import ModelError, OptionsError
from meddift.features import ExtractionOptions, extract_pyramid, extract_pyramids
from meddift.features.code import code_digest, installed_version
from meddift.features.extraction import pyramid_key
from meddift.geometry import Grid
from meddift.models import find_spec
from meddift.volume import Volume

SCAN = make_scan()
ALL = ("up0", "up1", "up2", "up3", "mind")


def test_levels_come_coarse_to_fine_on_the_grids_the_model_gave():
    model = FakeModel()
    pyramid = extract_pyramid(SCAN, model, ExtractionOptions(levels=("mind", "up3", "up0", "up2", "up1")))
    assert pyramid.names == ALL
    prepared = model.prepare(SCAN)
    assert pyramid.network_grid == prepared.grid
    assert pyramid.image_grid == SCAN.grid
    latent = model.encode(prepared)
    for name in ALL[:-1]:
        truth = model.level(latent, name, model.noise_seeds[0])
        found = pyramid.level(name)
        assert found.grid == truth.grid
        np.testing.assert_array_equal(np.moveaxis(found.features, -1, 0), truth.data)


def test_draws_are_averaged_and_all_different():
    model = FakeModel()
    pyramid = extract_pyramid(SCAN, model, ExtractionOptions(levels=("up1",), noise_samples=4, timestep=33))
    seeds = model.noise_seeds
    assert len(set(seeds)) == 4
    assert None not in seeds
    assert {entry["timestep"] for entry in model.asked if "timestep" in entry} == {33}
    latent = model.encode(model.prepare(SCAN))
    truth = np.mean([model.level(latent, "up1", seed).data.astype(np.float64) for seed in seeds], axis=0)
    np.testing.assert_allclose(np.moveaxis(pyramid.level("up1").features, -1, 0), truth, atol=1e-6)


def test_zero_draws_run_the_network_once_without_noise():
    model = FakeModel()
    extract_pyramid(SCAN, model, ExtractionOptions(levels=("up1",), noise_samples=0))
    assert model.noise_seeds == [None]


OTHER = make_scan(1)


def seeds(scan: Volume, **options) -> list:
    model = FakeModel()
    extract_pyramid(scan, model, ExtractionOptions(levels=("up0",), noise_samples=2, **options))
    return [*model.noise_seeds, model.asked[0]["seed"]]


def test_scans_share_draws_only_when_asked_to():
    assert seeds(SCAN, shared_noise=True) == seeds(OTHER, shared_noise=True)
    assert not set(seeds(SCAN)) & set(seeds(OTHER))
    assert not set(seeds(SCAN)) & set(seeds(SCAN, seed=1))


def test_draws_are_those_of_the_scan_however_it_is_stored():
    assert seeds(SCAN) == seeds(SCAN)
    assert seeds(SCAN) == seeds(SCAN.reoriented("PIL"))
    assert seeds(SCAN) == seeds(Volume(SCAN.data.astype(np.float64), SCAN.grid))


def test_more_draws_begin_with_the_same_draws():
    few, many = FakeModel(), FakeModel()
    extract_pyramid(SCAN, few, ExtractionOptions(levels=("up0",), noise_samples=2))
    extract_pyramid(SCAN, many, ExtractionOptions(levels=("up0",), noise_samples=3))
    assert many.noise_seeds[:2] == few.noise_seeds


def test_the_network_is_told_the_spacing_asked_for():
    told = {}
    for source in ("network", "original"):
        model = FakeModel()
        extract_pyramid(SCAN, model, ExtractionOptions(levels=("up0",), spacing_source=source))
        told[source] = model.asked[-1]["spacing"]
    assert told["network"] is None  # the model's own grid
    np.testing.assert_allclose(told["original"], [1.9, 2.2, 2.5])
    turned = SCAN.reoriented("SLP")
    model = FakeModel()
    extract_pyramid(turned, model, ExtractionOptions(levels=("up0",), spacing_source="original"))
    np.testing.assert_allclose(model.asked[-1]["spacing"], [1.9, 2.2, 2.5])


def test_a_posterior_sample_is_asked_for_by_name_and_seed():
    model = FakeModel()
    extract_pyramid(SCAN, model, ExtractionOptions(levels=("up0",), latent="sample"))
    assert model.asked[0]["latent"] == "sample"


def test_mind_alone_needs_no_model_and_covers_the_scan_without_padding():
    pyramid = extract_pyramid(SCAN, None, ExtractionOptions(levels=("mind",)))
    grid = pyramid.level("mind").grid
    assert pyramid.network_grid.size > grid.size
    assert SCAN.grid.contains(grid.voxel_centers()).all()
    reach = grid.center - SCAN.grid.center
    assert np.abs(reach).max() < 1e-6
    assert (np.abs(grid.extent - SCAN.grid.reoriented("RAS")[0].extent) <= grid.spacing).all()
    assert "weights" not in pyramid.provenance


def test_mind_is_the_same_with_and_without_a_model_of_the_same_rules():
    options = ExtractionOptions(levels=("mind",))
    without = extract_pyramid(SCAN, None, options)
    beside = extract_pyramid(SCAN, FakeModel(), options)
    np.testing.assert_array_equal(without.level("mind").features, beside.level("mind").features)
    assert without.digest == beside.digest


@pytest.mark.parametrize("orientation", ["RAS", "SPL", "AIL"])
def test_how_a_scan_is_stored_does_not_matter(orientation):
    options = ExtractionOptions(levels=("up1", "mind"))
    plain = extract_pyramid(SCAN, FakeModel(), options)
    turned = extract_pyramid(SCAN.reoriented(orientation), FakeModel(), options)
    for name in options.levels:
        assert turned.level(name).grid.same_as(plain.level(name).grid, tolerance_mm=1e-9)
        np.testing.assert_array_equal(turned.level(name).features, plain.level(name).features)


def test_features_that_are_not_finite_are_refused_by_name():
    with pytest.raises(ModelError, match="'up2'"):
        extract_pyramid(SCAN, FakeModel(spoil="up2"), ExtractionOptions())


def test_levels_of_a_network_need_a_model():
    with pytest.raises(OptionsError, match="up0"):
        extract_pyramid(SCAN, None, ExtractionOptions(levels=("up0", "mind")))


def test_progress_starts_at_nothing_ends_with_all_and_never_goes_back():
    for options in (
        ExtractionOptions(noise_samples=3),
        ExtractionOptions(levels=("up0",)),
        ExtractionOptions(levels=("mind",)),
    ):
        told = []
        extract_pyramid(
            SCAN, FakeModel(), options, on_progress=lambda text, share, told=told: told.append((text, share))
        )
        shares = [share for _, share in told]
        assert shares[0] == 0
        assert shares[-1] == 1
        assert all(later > earlier for earlier, later in pairwise(shares)), told


@pytest.mark.parametrize(("shape", "batches"), [((30, 26, 22), [2] * 3), ((30, 26, 60), [1] * 6)])
@pytest.mark.parametrize("numbers", ["float32", "float16"])
def test_scans_extracted_at_once_are_those_extracted_alone(shape, batches, numbers):
    """With their own draws; in one batch for each draw if the network takes them in one shape."""
    options = ExtractionOptions(levels=ALL, noise_samples=3, latent="sample", numbers=numbers)
    scans = [SCAN, make_scan(1, shape)]
    model = FakeModel()
    together = extract_pyramids(scans, model, options, digests=[None, "b" * 64])
    assert model.batches == batches
    drawn, encoded = [], []
    for volume, found in zip(scans, together, strict=True):
        single = FakeModel()
        alone = extract_pyramid(volume, single, options, digest=None if volume is SCAN else "b" * 64)
        drawn.append(single.noise_seeds)
        encoded += [entry["seed"] for entry in single.asked if "latent" in entry]
        assert (found.digest, found.names, found.image_grid, found.network_grid) == (
            alone.digest, alone.names, alone.image_grid, alone.network_grid,
        )  # fmt: skip
        assert found.provenance == alone.provenance
        for one, two in zip(found.levels, alone.levels, strict=True):
            assert one.grid == two.grid
            assert one.values.dtype == two.values.dtype
            np.testing.assert_array_equal(one.features, two.features)
        np.testing.assert_array_equal(found.moments["mind"].mean, alone.moments["mind"].mean)
    assert [entry["seed"] for entry in model.asked if "latent" in entry] == encoded
    assert len(set(encoded)) == 2
    assert model.noise_seeds == [seed for draw in zip(*drawn, strict=True) for seed in draw]
    assert len(set(model.noise_seeds)) == 6


def test_the_key_changes_with_everything_that_changes_features_and_with_nothing_else():
    options = ExtractionOptions(noise_samples=2)
    spec = find_spec("builtin")
    made_by = {"weights": "a" * 64, "precision": "float32", "device": "cpu"}

    def key(volume=SCAN, options=options, spec=spec, **changed):
        return pyramid_key(volume.digest(), options, spec, **{**made_by, **changed})

    base = key()
    assert base == extract_pyramid(SCAN, FakeModel(), options).digest
    touched = SCAN.data.copy()
    touched[3, 4, 5] += 1
    moved = SCAN.grid.affine.copy()
    moved[0, 3] += 0.01
    others = [
        key(Volume(touched, SCAN.grid)),
        key(Volume(SCAN.data, Grid(SCAN.grid.shape, moved))),
        key(spec=dataclasses.replace(spec, grid=dataclasses.replace(spec.grid, spacing_mm=3.0))),
        key(weights="b" * 64),
        key(precision="bfloat16"),
        key(device="cuda:0"),
    ]
    changes = {
        "timestep": 21,
        "levels": ("up0",),
        "noise_samples": 3,
        "latent": "sample",
        "seed": 1,
        "spacing_source": "original",
        "shared_noise": True,
        "part": "body",
        "numbers": "float16",
    }
    assert set(changes) == {field.name for field in dataclasses.fields(options)}
    others += [key(options=dataclasses.replace(options, **{k: v})) for k, v in changes.items()]
    assert len({base, *others}) == 1 + len(others)
    assert key(options=dataclasses.replace(options, levels=options.levels[::-1])) == base
    assert key(device="cuda:1") == key(device="cuda:0")
    alone = ExtractionOptions(levels=("mind",))
    assert key(options=alone) == key(options=alone, weights="b" * 64, device="cuda")


@pytest.mark.parametrize(
    ("package", "model", "changes"),
    [("torch", "builtin", True), ("monai", "builtin", False), ("monai", "maisi-ct-ddpm", True)],
)
def test_the_key_changes_with_the_libraries_that_compute_features(package, model, changes, monkeypatch):
    spec, options = find_spec(model), ExtractionOptions()
    before = pyramid_key("a", options, spec)
    version = "meddift.features.extraction.installed_version"
    monkeypatch.setattr(version, lambda name: "9" if name == package else installed_version(name))
    assert (pyramid_key("a", options, spec) != before) == changes


def test_the_key_changes_with_the_code_that_computes_features(monkeypatch, tmp_path):
    """A copy of the package, one character of which is changed."""
    import meddift

    copy = tmp_path / "meddift"
    shutil.copytree(Path(meddift.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    monkeypatch.setattr("meddift.features.code.resources.files", lambda name: copy)
    before = code_digest.__wrapped__("features", "geometry")
    assert before == code_digest("features", "geometry")
    with (copy / "cli" / "app.py").open("a") as file:
        file.write("#")
    assert code_digest.__wrapped__("features", "geometry") == before
    with (copy / "features" / "mind.py").open("a") as file:
        file.write("#")
    assert code_digest.__wrapped__("features", "geometry") != before


@pytest.mark.parametrize(
    "wrong",
    [
        {"levels": ()},
        {"levels": ("up0", "up0")},
        {"timestep": -1},
        {"timestep": 2.5},
        {"noise_samples": -1},
        {"noise_samples": True},
        {"seed": -3},
        {"latent": "median"},
        {"spacing_source": "mine"},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(OptionsError, match=next(iter(wrong))):
        ExtractionOptions(**wrong)


def test_a_specification_says_what_works_best():
    spec = find_spec("maisi-ct-ddpm")
    options = ExtractionOptions.for_model(spec, seed=4)
    assert options.timestep == spec.defaults.timestep
    assert set(options.network_levels) == set(spec.defaults.levels)
    assert options.noise_samples == spec.defaults.noise_samples
    assert options.seed == 4
