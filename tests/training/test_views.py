"""Training data: points of two views correspond, the latent is the package's, and what the objectives reward."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch

import degrade_views
import views
from degrade_views import change_lung_density, sample_scan
from meddift.models import haar_forward
from objectives import correspondence, read_level
from train import denoising_target, haar
from training_scans import Scan, draw_phantoms, load_scans, shown
from views import make_pair, random_view

SPACING = 2.0
SHAPE = (110, 100, 90)


def blobs(x: torch.Tensor) -> torch.Tensor:
    """Intensity at (..., 3) scan mm, in closed form: smooth, and different everywhere."""
    generator = torch.Generator().manual_seed(5)
    middles = torch.rand(30, 3, generator=generator) * torch.tensor(SHAPE) * SPACING
    heights = torch.rand(30, generator=generator) * 1200 - 500
    squared = (x[..., None, :] - middles).square().sum(-1)
    return -300 + (heights * torch.exp(-squared / (2 * 22.0**2))).sum(-1)


@pytest.fixture(scope="module")
def scan() -> Scan:
    axes = [torch.arange(n) * SPACING for n in SHAPE]
    return Scan("blobs", blobs(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)), SPACING)


def undegraded(view, scan, generator, *, version, contrast) -> None:
    view.image = sample_scan(scan.hu, scan.spacing_mm, view.to_scan(view.lattice()))
    view.plain = shown(view.image)


def read_intensity(view, points: torch.Tensor) -> torch.Tensor:
    """Intensity of a view at its points, by the function that reads levels in training (which normalises)."""
    channels = torch.stack([view.image / 1000, torch.ones_like(view.image)])[None]
    value = read_level(channels, points[None], view.half_extent)[0]
    return 1000 * value[:, 0] / value[:, 1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_both_views_show_the_same_intensity_at_corresponding_points(scan, seed, monkeypatch):
    monkeypatch.setattr(views, "render", undegraded)
    generator = torch.Generator().manual_seed(seed)
    pair = make_pair([scan], generator, shape=(64, 64, 64), count=200)
    x = pair.views[0].to_scan(pair.points[0])
    # Within two voxels of the scan's border a view mixes in the air beyond.
    keep = ((x > 5) & (x < torch.tensor(SHAPE) * SPACING - 7)).all(-1)
    points = [p[keep] for p in pair.points]
    first, second = (read_intensity(v, p) for v, p in zip(pair.views, points, strict=True))
    # Independent of both images: the closed form where the first view says that its points lie.
    truth = blobs(x[keep])
    assert len(first) >= 50
    assert (first - truth).abs().max() < 12
    assert (second - truth).abs().max() < 12
    wrong = read_intensity(pair.views[1], points[1] + 6.0)
    assert (wrong - truth).abs().median() > 5 * (second - truth).abs().median()
    assert truth.std() > 20


def test_views_differ_in_more_than_a_shift(scan, monkeypatch):
    monkeypatch.setattr(views, "render", undegraded)
    pair = make_pair([scan], torch.Generator().manual_seed(3), shape=(64, 64, 64), count=200)
    a, b = (torch.cat([p, torch.ones(len(p), 1)], 1) for p in pair.points)
    affine = torch.linalg.lstsq(a, b).solution
    shift = (pair.points[1] - pair.points[0]).mean(0)
    assert (pair.points[0] + shift - pair.points[1]).norm(dim=1).mean() > 3
    assert (a @ affine - b).norm(dim=1).mean() > 0.5


def test_degraded_views_still_correspond(scan):
    # Noise, kernels and calibration change every value: what is left is that bright stays bright.
    agreement, shuffled = [], []
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        pair = make_pair([scan], generator, shape=(64, 64, 64), count=300, contrast=0.0)
        first, second = (read_intensity(v, p) for v, p in zip(pair.views, pair.points, strict=True))
        agreement.append(float(torch.corrcoef(torch.stack([first, second]))[0, 1]))
        shuffled.append(float(torch.corrcoef(torch.stack([first, second.roll(7)]))[0, 1]))
    assert np.mean(agreement) > 0.6
    assert np.mean(agreement) > np.mean(shuffled) + 0.5


@pytest.mark.parametrize("seed", range(4))
def test_a_view_is_inverted_and_never_folds(scan, seed):
    generator = torch.Generator().manual_seed(seed)
    view = random_view(scan, torch.tensor([110.0, 100.0, 90.0]), generator, shape=(80, 80, 80))
    inside = (torch.rand(400, 3, generator=generator) - 0.5) * 1.8 * view.half_extent
    back, residual = view.from_scan(view.to_scan(inside))
    found = residual < 0.2
    assert found.float().mean() > 0.95
    assert (view.to_scan(back) - view.to_scan(inside)).norm(dim=-1)[found].max() < 0.2
    assert (back - inside).norm(dim=-1)[found].median() < 0.05
    columns = [(view.to_scan(inside + 0.5 * e) - view.to_scan(inside - 0.5 * e)) for e in torch.eye(3)]
    assert torch.linalg.det(torch.stack(columns, -1)).gt(0).float().mean() > 0.99


def test_voxels_of_a_view_lie_where_its_points_are_taken_from(scan):
    view = random_view(scan, torch.tensor([110.0, 100.0, 90.0]), torch.Generator().manual_seed(4), shape=(48, 32, 64))
    torch.testing.assert_close(view.places(), view.to_scan(view.lattice()), atol=2e-3, rtol=0)


def test_points_are_drawn_in_the_body_and_half_of_them_where_there_is_texture(scan):
    view = random_view(scan, torch.tensor([110.0, 100.0, 90.0]), torch.Generator().manual_seed(4), shape=(48, 48, 48))
    place = view.lattice()
    generator = torch.Generator().manual_seed(0)
    rough = 0.5 * torch.rand(48, 48, 48, generator=generator) * (place[..., 1] > 0)
    view.plain = torch.where(place[..., 0] > 0, 0.4 + rough, 0.0)
    points = views.pick_points(view, "CT", 1001, generator)
    assert points.shape == (1001, 3)
    assert float(points[:, 0].min()) > -3  # the body, and a voxel or two where it is half
    assert bool((points.abs() <= view.half_extent).all())
    # All of the textured ones lie on one side (or on the border of the body), half of the others.
    assert 0.64 < float((points[:, 1] > -3).float().mean()) < 0.85
    assert len({tuple(p) for p in points.tolist()}) > 990


def test_lungs_change_density_and_vessels_do_not():
    generator = torch.Generator().manual_seed(0)
    image = torch.full((20, 24, 16), -860.0)
    image[8:11] = 45.0  # a vessel
    image[15:] = -1000.0  # an airway
    lungs = []
    for _ in range(40):
        changed = change_lung_density(image, generator)
        assert torch.equal(changed[8:11], image[8:11])
        assert (changed[15:] + 1000).abs().max() < 1e-3
        lungs.append(float(changed[:8].mean()))
    # As between breathing out and in: a hundred HU to either side is common, and lung stays lung.
    assert np.ptp(lungs) > 80
    assert -960 < min(lungs) < max(lungs) < -740


def test_shades_keep_their_order_when_density_changes():
    ramp = torch.linspace(-1000, 300, 200).reshape(1, 1, -1).expand(4, 6, -1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(40):
        assert (change_lung_density(ramp, generator).diff(dim=2) > 0).all()


def test_views_of_a_scan_start_from_its_versions(scan, monkeypatch):
    seen = []

    def remember(hu, spacing_mm, x):
        seen.append(float(hu.mean()))
        return sample_scan(hu, spacing_mm, x)

    monkeypatch.setattr(degrade_views, "sample_scan", remember)
    three = Scan("three", scan.hu, SPACING, others=(scan.hu + 1, scan.hu + 2))
    generator = torch.Generator().manual_seed(2)
    for _ in range(10):
        make_pair([three], generator, shape=(48, 48, 48), count=80)
    assert len({round(value - float(scan.hu.mean())) for value in seen}) == 3


def test_without_contrast_two_views_of_mr_show_one_contrast(scan, monkeypatch):
    shown_of = []
    real = degrade_views.render

    def remember(view, scan, generator, *, version, contrast):
        shown_of.append(version)
        real(view, scan, generator, version=version, contrast=contrast)

    monkeypatch.setattr(views, "render", remember)
    monkeypatch.setattr(degrade_views, "random_map", None)  # a map would fail
    patient = Scan("patient", scan.hu, SPACING, others=(scan.hu - 100, scan.hu - 200), modality="MR")
    for seed in range(8):
        make_pair([patient], torch.Generator().manual_seed(seed), shape=(48, 48, 48), count=80, contrast=0.0)
    assert shown_of[0::2] == shown_of[1::2]  # every pair at its first try
    assert len(set(shown_of)) > 1


def test_equal_seeds_give_equal_pairs(scan):
    pairs = [make_pair([scan], torch.Generator().manual_seed(9), shape=(64, 64, 64), count=100) for _ in range(2)]
    for a, b in zip(*(pair.views for pair in pairs), strict=True):
        assert torch.equal(a.image, b.image)
    assert torch.equal(pairs[0].points[1], pairs[1].points[1])


def test_the_latent_of_training_is_that_of_the_package():
    image = torch.rand(6, 8, 10, generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(haar(image[None])[0].numpy(), haar_forward(image.numpy()), atol=1e-6)


@pytest.mark.parametrize("timestep", [0, 20, 500, 999])
def test_every_prediction_gives_the_clean_latent_back(timestep):
    """What a network that answers perfectly says, together with what it saw, determines the latent and the noise."""
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64) ** 2
    signal = float((1 - betas).cumprod(0)[timestep] ** 0.5)
    spread = (1 - signal**2) ** 0.5
    generator = torch.Generator().manual_seed(timestep)
    latent, noise = (torch.randn(2, 8, 4, 4, 4, generator=generator, dtype=torch.float64)).unbind(0)
    seen = signal * latent + spread * noise
    assert torch.equal(denoising_target("sample", latent, noise, signal), latent)
    epsilon = denoising_target("epsilon", latent, noise, signal)
    torch.testing.assert_close((seen - spread * epsilon) / signal, latent)
    velocity = denoising_target("v", latent, noise, signal)
    torch.testing.assert_close(signal * seen - spread * velocity, latent)
    torch.testing.assert_close(spread * seen + signal * velocity, noise)


# ---------------------------------------------------------------------- objectives


def place_code(shape: int, spacing: float, width: float, seed: int) -> torch.Tensor:
    """(1, 384, n, n, n) random Fourier features: the cosine of two places is about exp(-d^2 / (2 width^2))."""
    generator = torch.Generator().manual_seed(seed)
    axis = (torch.arange(shape) - (shape - 1) / 2) * spacing
    places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    waves = torch.randn(3, 384, generator=generator) / width
    phase = torch.rand(384, generator=generator) * 2 * torch.pi
    return torch.cos(places @ waves + phase).permute(3, 0, 1, 2)[None]


@pytest.fixture(scope="module")
def perfect():
    levels = {f"up{i}": place_code(32, 4.0, 8.0, i) for i in range(4)}
    generator = torch.Generator().manual_seed(1)
    points = (torch.rand(150, 3, generator=generator) - 0.5) * 110
    extra = (torch.rand(150, 3, generator=generator) - 0.5) * 110
    return levels, points[None], extra[None], torch.full((3,), 64.0)


def loss_of(perfect, second_points: torch.Tensor) -> tuple[float, dict[str, float]]:
    levels, points, extra, half = perfect
    generator = torch.Generator().manual_seed(2)
    both = torch.stack([points, second_points])
    loss, figures = correspondence((levels, levels), both, extra, half, generator=generator)
    return float(loss), {name: float(value) for name, value in figures.items()}


def test_descriptors_that_tell_every_place_apart_have_hardly_any_loss(perfect):
    loss, figures = loss_of(perfect, perfect[1])
    assert loss < 1.0
    assert all(figures[name] > 0.99 for name in ("up0", "up1", "up2", "up3", "fused"))
    assert figures["local_mm"] < 0.5


def test_wrong_correspondence_is_punished(perfect):
    right, _ = loss_of(perfect, perfect[1])
    shuffled, figures = loss_of(perfect, perfect[1].roll(1, 1))
    assert shuffled > 20 * right
    assert figures["fused"] < 0.05
    # A few mm off as well: that is what the local part is for.
    near, figures = loss_of(perfect, perfect[1] + torch.tensor([4.0, 0.0, 0.0]))
    assert near > right + 1
    assert figures["local_mm"] > 2


def test_the_objective_has_a_gradient_on_every_level(perfect):
    levels = {name: value.clone().requires_grad_() for name, value in perfect[0].items()}
    generator = torch.Generator().manual_seed(2)
    both = torch.stack([perfect[1], perfect[1].roll(1, 1)])
    loss, _ = correspondence((levels, levels), both, perfect[2], perfect[3], generator=generator)
    loss.sum().backward()
    assert all(float(value.grad.abs().sum()) > 0 for value in levels.values())


def test_pairs_of_a_batch_count_one_by_one(perfect):
    # A batch of a right and a wrong pair has the losses that each has alone.
    levels, points, extra, half = perfect
    right, wrong = torch.stack([points, points]), torch.stack([points, points.roll(1, 1)])
    twice = {name: value.expand(2, -1, -1, -1, -1) for name, value in levels.items()}

    def losses(levels, points, extra):
        generator = torch.Generator().manual_seed(2)
        # All points take part in the local objective, at one place each, so that no draw differs.
        return correspondence(
            (levels, levels), points, extra, half, generator=generator, local_points=10**6, local_offsets=1
        )[0]

    both = losses(twice, torch.cat([right, wrong], 1), extra.expand(2, -1, -1))
    alone = torch.cat([losses(levels, pair, extra) for pair in (right, wrong)])
    torch.testing.assert_close(both, alone, rtol=1e-4, atol=1e-4)
    # The same point again is no wrong candidate.
    assert float(losses(levels, points.repeat(1, 2, 1).expand(2, 1, -1, -1), extra)) < 1.0


# ---------------------------------------------------------------------- scans


def test_held_out_scans_are_never_read(tmp_path):
    data = np.zeros((12, 10, 8), dtype=np.int16)
    data[:6] = 40
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])  # LPS axes, 1 x 1 x 2 mm
    names = ["LIDC-0001_2mm", "LIDC-0314_2mm", "CMB-CRC-MSB-01068_partial_2mm", "TotalSeg_example_ct_2mm", "native"]
    for name in names:
        nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / f"{name}.nii.gz")
    scans = load_scans(tmp_path, spacing_mm=2.0)
    assert [scan.name for scan in scans] == ["LIDC-0001_2mm"]
    assert scans[0].hu.shape == (6, 5, 8)
    # The first half along L is the second half along R.
    assert float(scans[0].hu[-1].mean()) == 40
    assert float(scans[0].hu[0].mean()) == 0


def test_drawn_chests_join_the_scans(scan):
    drawn = draw_phantoms(2, spacing_mm=6.0, weight=0.5)
    assert [phantom.name for phantom in drawn] == ["phantom-0", "phantom-1"]
    assert all(phantom.spacing_mm == 6.0 and phantom.weight == 0.5 for phantom in drawn)
    for phantom in drawn:
        assert ((phantom.hu > -950) & (phantom.hu < -600)).float().mean() > 0.05  # lungs
        assert (phantom.hu > 200).float().mean() > 0.005  # bones
    assert not torch.equal(drawn[0].hu, drawn[1].hu)
    # Weight 0: never drawn. The blobs alone reach below -300 HU nowhere near air.
    silent = [Scan(p.name, torch.full_like(p.hu, 2500.0), p.spacing_mm, 0.0) for p in drawn]
    pair = make_pair([scan, *silent], torch.Generator().manual_seed(0), shape=(64, 64, 64), count=100)
    assert pair.views[0].spacing_mm == SPACING


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v"])
def test_the_picture_of_samples_undoes_what_training_asks_for(prediction):
    from denoised_samples import clean_estimate

    generator = torch.Generator().manual_seed(4)
    latent, noise = torch.randn(2, 1, 8, 4, 4, 4, generator=generator, dtype=torch.float64).unbind(0)
    signal, spread = 0.6, 0.8
    output = denoising_target(prediction, latent, noise, signal)
    found = clean_estimate(prediction, signal * latent + spread * noise, output, signal, spread)
    torch.testing.assert_close(found, latent)
