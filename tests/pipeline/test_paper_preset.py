"""`preset="paper"` against the paper's steps written out in full, with nibabel, PyTorch and MONAI alone.

Nothing of `meddift` takes part in `Written` but the seeds of draws: both sides must draw the same random numbers, and
`ExtractionOptions.seed_for` says which seed belongs to which draw of which scan (told apart by the digest of what the
network sees). With it, the generator of PyTorch gives the posterior sample (MONAI's own `encode_stage_2_inputs`) and
the noise that is added at the timestep.

The network's weights are random, in the layout of the published files. Both sides compute in float32, in different
order (attention, interpolation, sums over channels), so voxels of equal similarity to 1e-6 cannot be told apart.
"""

from __future__ import annotations

import itertools

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from checkpoints import monai_unet, tensors, write_spec, write_weights
from meddift.errors import OptionsError
from meddift.features import ExtractionOptions
from meddift.geometry import Grid
from meddift.models import find_spec, prepare_volume
from meddift.pipeline import Matcher
from meddift.volume import Volume

#: What the checkpoint says; the network must see latents multiplied by it.
SCALE_FACTOR = 0.97
ORIENTATIONS = [
    "".join(order[i][flips[i]] for i in range(3))
    for order in itertools.permutations(("RL", "AP", "SI"))
    for flips in itertools.product((0, 1), repeat=3)
]


def paper_spec(folder, kind):
    """A tiny model of MAISI's layout with MAISI's grid rule, and the folder of its weights."""
    write_spec(folder, kind)
    path = folder / f"tiny-{kind}.toml"
    text = path.read_text(encoding="utf-8")
    # 128 x 128 x 128 voxels is the smallest input of this grid rule: few channels at full resolution.
    for wide, narrow in (
        ("num_channels = [32, 32, 64]\n", "num_channels = [8, 8, 16]\n"),
        ('kind = "respace"\nspacing_mm = 2.0\nmultiple = 32\n', 'kind = "resize_128"\n'),
    ):
        assert wide in text
        text = text.replace(wide, narrow)
    head, tail = text.split("[latent.network]", 1)
    assert "norm_num_groups = 16" in tail.split("[unet]")[0]
    text = head + "[latent.network]" + tail.replace("norm_num_groups = 16", "norm_num_groups = 8", 1)
    path.write_text(text, encoding="utf-8")
    spec = find_spec(str(path))
    return spec, write_weights(folder / kind, spec)


def make_scan(seed, shape, spacing, orientation):
    """Texture in HU, partly beyond the window, stored in any orientation; RAS shape and spacing are given."""
    generator = np.random.default_rng(seed)
    coarse = torch.from_numpy(generator.standard_normal((1, 1, 9, 8, 11)).astype(np.float32))
    smooth = F.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)[0, 0].numpy()
    data = np.round(700 * smooth + 60 * generator.standard_normal(shape) - 100).astype(np.int16)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = generator.uniform(-90, 90, 3)
    image = nibabel.Nifti1Image(data, affine)
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(tuple(orientation))
    )
    return image.as_reoriented(turn)


def as_volume(image):
    return Volume(np.asarray(image.dataobj), Grid(image.shape, image.affine))


class Written:
    """One scan's features, step by step as DESIGN's formulas for `paper` say."""

    def __init__(self, image, spec, options):
        canonical = nibabel.as_closest_canonical(image)
        self.affine = canonical.affine
        self.shape = canonical.shape
        # HU in [-1000, 1000] to [0, 1].
        data = torch.from_numpy(np.asarray(canonical.dataobj).astype(np.float32))
        scaled = ((data + 1000) / 2000).clamp(0, 1)[None, None]
        size = [max(round(n / 128), 1) * 128 for n in canonical.shape]
        resized = F.interpolate(scaled, size=size, mode="trilinear", align_corners=False)
        spacing = np.sqrt((canonical.affine[:3, :3] ** 2).sum(axis=0))
        network = autoencoder(spec)
        digest = prepare_volume(as_volume(image), spec).digest()
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(options.seed_for("latent", digest))
            latent = network.encode_stage_2_inputs(resized) * SCALE_FACTOR
            torch.manual_seed(options.seed_for("noise 0", digest))
            noisy, time = noised(spec, latent, torch.randn_like(latent))
            self.levels = decoder_maps(spec, noisy, time, spacing)

    def describe(self, positions):
        """Unit descriptors at world points: each level read trilinearly on its own coarse voxels."""
        index = nibabel.affines.apply_affine(np.linalg.inv(self.affine), positions)
        # align_corners=False: -1 and 1 are the outer faces of the border voxels; the last axis comes first.
        place = torch.from_numpy(2 * (index + 0.5) / np.array(self.shape) - 1)[:, [2, 1, 0]].double()
        described = []
        for level in self.levels:
            read = F.grid_sample(
                level.double(), place[None, :, None, None], padding_mode="border", align_corners=False
            )[0, :, :, 0, 0].T
            described.append(F.normalize(read, dim=1))
        return described

    def similarity(self, described):
        """(N, X, Y, Z) mean cosine at every voxel of the scan, descriptors upsampled to full resolution."""
        total = 0
        for level, queries in zip(self.levels, described, strict=True):
            full = F.interpolate(level, size=self.shape, mode="trilinear", align_corners=False)[0]
            cosine = torch.einsum("nc,cxyz->nxyz", queries.float(), full)
            total = total + cosine.double() / full.norm(dim=0).double()
        return (total / len(self.levels)).numpy()


def autoencoder(spec):
    from meddift.models.monai_import import monai_autoencoder

    network = monai_autoencoder()(spatial_dims=3, num_splits=1, save_mem=False, **spec.latent.network).eval()
    network.load_state_dict(tensors(spec, "autoencoder"))
    return network


def noised(spec, latent, noise):
    """MONAI's own schedulers; t = 20 for ddpm."""
    from monai.networks.schedulers import DDIMScheduler, RFlowScheduler

    time = torch.tensor([spec.defaults.timestep])
    if spec.schedule.kind == "rflow":
        scheduler = RFlowScheduler(num_train_timesteps=1000, use_discrete_timesteps=False)
    else:
        scheduler = DDIMScheduler(
            num_train_timesteps=1000, schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0195
        )
        assert time.item() == 20
    return scheduler.add_noise(original_samples=latent, noise=noise, timesteps=time), time


def decoder_maps(spec, noisy, time, spacing):
    """A plain pass of MONAI's network with the outputs of its four decoder blocks."""
    network = monai_unet()(spatial_dims=3, **spec.unet).eval()
    wanted = network.state_dict()
    network.load_state_dict({name: value for name, value in tensors(spec, "unet").items() if name in wanted})
    told = {"spacing_tensor": torch.tensor(spacing * 100, dtype=torch.float32)[None]}
    if spec.schedule.kind == "rflow":
        told["class_labels"] = torch.tensor([1])
    else:
        chest = torch.tensor([[0.0, 1.0, 0.0, 0.0]]) * 100
        told |= {"top_region_index_tensor": chest, "bottom_region_index_tensor": chest}
    maps = []
    for block in network.up_blocks:
        block.register_forward_hook(lambda _module, _inputs, output: maps.append(output))
    network(noisy, time, **told)
    assert len(maps) == 4
    return maps


def points_of(image, generator, count):
    """World points at voxel centres and between them, some within half a voxel of the outer faces."""
    shape = np.array(image.shape)
    centres = generator.integers(0, shape, (count, 3)).astype(float)
    between = generator.uniform(-0.5, shape - 0.5, (count, 3))
    return nibabel.affines.apply_affine(image.affine, np.concatenate([centres, between]))


def in_tissue(image, positions):
    """What `match` does not answer: points with air around them. The test is about the others."""
    volume = as_volume(image)
    around = np.array(list(itertools.product((-5, 0, 5), repeat=3)), dtype=float)
    values = volume.at((positions[:, None] + around).reshape(-1, 3)).reshape(len(positions), -1)
    return (values > -950).mean(axis=1) >= 0.1


def compare(tmp_path, kind, scans, *, count=24, seed=3):
    spec, weights = paper_spec(tmp_path, kind)
    fixed, moving = scans
    positions = points_of(fixed, np.random.default_rng(seed), count)
    matcher = Matcher(spec, "paper", weights=weights, store=False, seed=seed, device="cpu", confidence=False)
    pair = matcher.pair(as_volume(fixed), as_volume(moving))
    matches = pair.match(positions)
    options = ExtractionOptions(seed=seed)
    expected_fixed = Written(fixed, spec, options)
    expected_moving = Written(moving, spec, options)
    answered = np.isfinite(matches.similarity)
    np.testing.assert_array_equal(answered, in_tissue(fixed, positions))
    assert answered.sum() > count
    maps = expected_moving.similarity(expected_fixed.describe(positions[answered]))
    flat = maps.reshape(len(maps), -1)
    best = flat.argmax(axis=1)
    expected = nibabel.affines.apply_affine(
        expected_moving.affine, np.stack(np.unravel_index(best, maps.shape[1:]), axis=1)
    )
    found = matches.moving.positions[answered]
    np.testing.assert_allclose(matches.similarity[answered], flat.max(axis=1), atol=1e-5)
    index = nibabel.affines.apply_affine(np.linalg.inv(expected_moving.affine), found)
    np.testing.assert_allclose(index, np.round(index), atol=1e-6)  # whole voxels of the scan
    at_found = maps[np.arange(len(maps)), *np.round(index).astype(int).T]
    same = np.linalg.norm(found - expected, axis=1) < 1e-4
    tied = flat.max(axis=1) - at_found <= 1e-6
    assert (same | tied).all(), (flat.max(axis=1) - at_found)[~same]
    # Ties to rounding are the exception, or the comparison would say nothing.
    assert same.mean() > 0.9
    # The maps tell places apart: a search that returned some other good place would have been noticed.
    assert np.median(flat.max(axis=1) - np.percentile(flat, 99, axis=1)) > 1e-4
    assert len(np.unique(best)) > 0.8 * len(best)
    return spec, weights, pair, positions


def two_scans():
    return make_scan(1, (50, 30, 70), (1.75, 2.5, 1.25), "RAS"), make_scan(2, (44, 52, 36), (2.0, 1.5, 3.1), "PIL")


def test_paper_is_the_paper_to_the_voxel(tmp_path):
    _, _, pair, _ = compare(tmp_path, "ddpm", two_scans())
    assert pair.fixed.pyramid.network_grid.shape == (128, 128, 128)


@pytest.mark.slow
def test_another_choice_would_have_been_noticed(tmp_path):
    """What the answers would be if one of the choices of the preset were another one: they count in the test above."""
    scans = two_scans()
    spec, weights = paper_spec(tmp_path, "ddpm")
    positions = points_of(scans[0], np.random.default_rng(3), 24)

    def similarity(**options):
        matcher = Matcher(spec, "paper", weights=weights, store=False, device="cpu", confidence=False, **options)
        return matcher.pair(*map(as_volume, scans)).match(positions).similarity

    expected = similarity(seed=3)
    for option in ({"latent": "mean"}, {"spacing": "network"}, {"seed": 4}, {"noise_samples": 0}):
        assert np.nanmax(np.abs(similarity(**{"seed": 3, **option}) - expected)) > 1e-4, option


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "shapes", "orientations"),
    [
        ("ddpm", ((100, 60, 140), (90, 110, 60)), ("LPS", "RAS")),
        ("ddpm", ((64, 30, 25), (30, 64, 48)), ("SAR", "IRP")),
        ("rflow", ((100, 60, 140), (61, 47, 90)), ("LAI", "ASL")),
        # 192 is 1.5 x 128 and 320 is 2.5 x 128: halves go to the even multiple, both to 256.
        ("ddpm", ((40, 192, 30), (20, 24, 320)), ("RAS", "LSP")),
    ],
)
def test_paper_at_other_sizes_and_orientations(tmp_path, kind, shapes, orientations):
    spacings = ((1.75, 2.5, 1.25), (1.3, 0.9, 2.2))
    scans = [
        make_scan(20 + i, shape, spacing, orientation)
        for i, (shape, spacing, orientation) in enumerate(zip(shapes, spacings, orientations, strict=True))
    ]
    _, _, pair, _ = compare(tmp_path, kind, scans)
    for pyramid, shape in zip(pair.encode(), shapes, strict=True):
        assert pyramid.network_grid.shape == tuple({192: 256, 320: 256, 140: 128, 110: 128}.get(n, 128) for n in shape)


def test_paper_weighs_all_levels_the_same_and_whitens_nothing(tmp_path):
    spec, _ = paper_spec(tmp_path, "ddpm")
    matcher = Matcher(spec, "paper", store=False, device="cpu")
    assert matcher.extraction.levels == ("up0", "up1", "up2", "up3")
    with pytest.raises(OptionsError):
        Matcher(spec, "paper", levels=("up4",))
