"""Other contrasts for training: maps that change shades and not anatomy, MR patients, thick slices, cut scans."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch

import degrade_views
from contrast import AIR_SHOWN, bias_field, interp, random_map, tissue_classes
from degrade_views import draw_versions, render, thicken
from training_scans import AIR_HU, TOP_HU, Scan, load_mr, map_mr, shown
from views import draw_scan, draw_shape, make_pair, random_view


def test_classes_of_three_tissues_are_their_brightnesses():
    generator = torch.Generator().manual_seed(0)
    tissues = torch.tensor([0.0, 0.2, 0.5, 0.8])[torch.randint(4, (20_000,), generator=generator)]
    values = (tissues + 0.005 * torch.randn(20_000, generator=generator)).clamp(0, 1)
    found = tissue_classes(values)
    for brightness in (0.2, 0.5, 0.8):
        assert (found - brightness).abs().min() < 0.02
    assert (found.diff() >= 0.02 - 1e-6).all()
    assert found.min() > AIR_SHOWN  # air is no tissue


def test_a_scan_of_nothing_has_a_class_all_the_same():
    assert len(tissue_classes(torch.zeros(500))) == 1


@pytest.mark.parametrize("seed", range(40))
def test_a_random_map_is_one_brightness_for_each_brightness_and_leaves_air_dark(seed):
    classes = torch.tensor([0.1, 0.4, 0.6, 0.85])
    knots, heights = random_map(classes, torch.Generator().manual_seed(seed))
    assert (knots.diff() > 0).all()
    values = torch.linspace(0, 1, 300)
    mapped = interp(values, knots, heights)
    assert mapped.min() >= 0
    assert mapped.max() <= 1
    assert mapped.max() > 0.7  # as after spreading a scan by its percentiles
    assert mapped[values < AIR_SHOWN].max() <= 0.05
    assert mapped[values > 0.1].min() > 0
    np.testing.assert_allclose(mapped.numpy(), np.interp(values, knots, heights), atol=1e-5)


def test_random_maps_keep_turn_around_and_shuffle_the_order_of_tissues():
    classes = torch.tensor([0.15, 0.35, 0.55, 0.75])
    orders = []
    for seed in range(200):
        knots, heights = random_map(classes, torch.Generator().manual_seed(seed))
        orders.append(tuple(interp(classes, knots, heights).argsort().tolist()))
    share = {order: orders.count(order) / len(orders) for order in set(orders)}
    assert share[0, 1, 2, 3] > 0.25
    assert share[3, 2, 1, 0] > 0.1
    assert len(share) > 15


def test_a_bias_field_varies_slowly_around_one():
    generator = torch.Generator().manual_seed(0)
    fields = [bias_field((40, 32, 24), generator, device=torch.device("cpu")) for _ in range(20)]
    assert all(float(field.min()) > 0.4 and float(field.max()) < 2.5 for field in fields)
    assert np.mean([float(field.max() / field.min()) for field in fields]) > 1.3
    assert max(float((field.diff(dim=0) / field[1:]).abs().max()) for field in fields) < 0.1


@pytest.mark.parametrize(("axis", "slices"), [(0, 2), (1, 3), (2, 3)])
def test_thick_slices_keep_ramps_and_means_and_lose_detail_along_their_axis_alone(axis, slices):
    n = 20  # no multiple of 3
    place = torch.arange(n, dtype=torch.float32)
    ramp = place.reshape([-1 if a == axis else 1 for a in range(3)]).expand(n, n, n)
    inside = (slice(4, -4),) * 3
    torch.testing.assert_close(thicken(ramp, axis, slices)[inside], ramp[inside])
    across = place.reshape([-1 if a == (axis + 1) % 3 else 1 for a in range(3)]).expand(n, n, n)
    torch.testing.assert_close(thicken(across, axis, slices), across)
    fine = ((-1.0) ** place).reshape([-1 if a == axis else 1 for a in range(3)])
    assert thicken(fine.expand(n, n, n), axis, 2)[inside].abs().max() < 1e-6


# ---------------------------------------------------------------------- MR


def head(contrast: int) -> np.ndarray:
    """(40, 44, 36) a head of 4 mm voxels in one of two contrasts, with a bright and a dark part."""
    x, y, z = np.meshgrid(*(np.arange(n) - n / 2 for n in (40, 44, 36)), indexing="ij")
    inside = (x / 16) ** 2 + (y / 18) ** 2 + (z / 15) ** 2 < 1
    part = ((x - 5) ** 2 + y**2 + z**2 < 30).astype(float)
    other = ((x + 6) ** 2 + (y - 4) ** 2 + z**2 < 30).astype(float)
    signal = (400 + 300 * part - 250 * other) if contrast == 0 else (400 - 200 * part + 350 * other)
    return np.where(inside, signal, 0).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two contrasts of one patient, of which the second has finer slices and shows less; one of another."""
    path = tmp_path_factory.mktemp("mr")
    affine = np.diag([-4.0, -4.0, 4.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(head(0), affine), path / "someone_T1W.nii.gz")
    fine = np.repeat(head(1)[:, :, 6:], 2, axis=2)
    moved = np.diag([-4.0, -4.0, 2.0, 1.0])
    moved[2, 3] = 6 * 4.0 - 1.0
    nibabel.save(nibabel.Nifti1Image(fine, moved), path / "someone_T2W.nii.gz")
    nibabel.save(nibabel.Nifti1Image(head(0), affine), path / "another_T1.nii.gz")
    return path


def test_contrasts_of_a_patient_lie_on_one_lattice_of_the_same_world(folder):
    another, someone = load_mr(folder, spacing_mm=4.0)
    assert (another.name, someone.name) == ("another", "someone")
    assert (len(another.others), len(someone.others)) == (0, 1)
    assert someone.modality == "MR"
    first, second = (np.clip((v.numpy() - AIR_HU) / (TOP_HU - AIR_HU), 0, 1) for v in (someone.hu, *someone.others))
    # RAS: both axes were turned around. Each contrast was spread over its own brightest tissue.
    expected = [np.flip(head(k) / head(k).max(), (0, 1)) for k in (0, 1)]
    np.testing.assert_allclose(first, expected[0], atol=1e-4)
    assert np.abs(second[:, :, 7:-1] - expected[1][:, :, 7:-1]).mean() < 0.01
    assert second[:, :, :5].max() == 0  # not shown by it


def test_mr_is_spread_by_the_brightest_of_the_body_whatever_its_units(folder):
    signal = head(0)
    signal[0, 0, 0] = 9000  # a spike
    once, scaled = map_mr(signal), map_mr(7 * signal)
    np.testing.assert_allclose(once, scaled, atol=0.1)
    assert once.min() == AIR_HU
    assert once.max() == TOP_HU
    assert float(np.mean(once >= TOP_HU)) < 0.02


def test_a_view_of_mr_may_show_another_contrast_of_the_same_places(folder):
    scan = load_mr(folder, spacing_mm=4.0)[1]
    seen = {0: 0, 1: 0}
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        view = random_view(scan, torch.tensor([80.0, 88.0, 90.0]), generator, shape=(32, 32, 32))
        version = draw_versions(scan, generator, contrast=1.0)[0]
        render(view, scan, generator, version=version)
        inside = view.to_scan(view.lattice())
        plains = [shown(degrade_views.sample_scan(v, 4.0, inside)) for v in (scan.hu, *scan.others)]
        kept = view.plain > 0
        differences = [float((view.plain - plain)[kept].abs().max()) for plain in plains]
        seen[int(np.argmin(differences))] += 1
        assert int(np.argmin(differences)) == version
        assert min(differences) < 1e-5
    assert min(seen.values()) >= 2


def test_as_many_pairs_show_mr_as_asked_for(folder):
    scans = [*load_mr(folder, spacing_mm=4.0), Scan("ct", torch.full((20, 20, 20), 40.0), 4.0)]
    generator = torch.Generator().manual_seed(0)
    share = np.mean([draw_scan(scans, generator, mr_share=0.3).modality == "MR" for _ in range(600)])
    assert share == pytest.approx(0.3, abs=0.06)
    assert draw_scan(scans[:2], generator, mr_share=0.0).modality == "MR"  # there is nothing else


def test_views_of_mr_are_what_a_network_is_shown(folder):
    scans = load_mr(folder, spacing_mm=4.0)
    for seed in range(6):
        pair = make_pair(scans, torch.Generator().manual_seed(seed), shape=(32, 32, 32), count=80)
        assert pair.modality == "MR"
        for view in pair.views:
            assert view.image.min() >= 0
            assert view.image.max() <= 1
            assert view.image.std() > 0.02


def test_what_a_cut_field_of_view_hides_is_no_partner(monkeypatch):
    """Half of the second view is cut off: no point may lie there, and the image is air or 0 HU there."""
    generator = torch.Generator().manual_seed(1)
    hu = 60 * torch.randn(100, 100, 100, generator=generator)
    scan = Scan("noise", hu, 2.0)
    hidden = []

    def half(view, _):
        hidden.append(view.lattice()[..., 0] > 0)
        return hidden[-1]

    monkeypatch.setattr(degrade_views, "_cut", half)
    fills = set()
    for seed in range(16):
        hidden.clear()
        pair = make_pair([scan], torch.Generator().manual_seed(seed), shape=(48, 48, 48), count=80)
        view, points = pair.views[1], pair.points[1]
        assert float(points[:, 0].max()) < 2.0
        fills.add(round(float(view.image[hidden[-1]].max()), 3))
        assert float(view.image[hidden[-1]].max() - view.image[hidden[-1]].min()) == 0
    assert fills == {0.0, round(float(shown(torch.tensor(0.0))), 3)}


def test_boxes_have_few_shapes_that_the_network_can_halve():
    generator = torch.Generator().manual_seed(0)
    shapes = {draw_shape(generator, budget=280_000)[0] for _ in range(300)}
    assert 5 <= len(shapes) <= 10
    assert all(n % 16 == 0 for shape in shapes for n in shape)
    assert sorted(np.prod(shape) for shape in shapes)[0] > 140_000
