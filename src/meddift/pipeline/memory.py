"""Estimating the memory of a match before any of it is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from meddift.features import ExtractionOptions
from meddift.features.extraction import MIND
from meddift.geometry import Grid
from meddift.models import ModelSpec, network_grid
from meddift.models.encoder_sizes import encoder_bytes
from meddift.pipeline.options import MANY, Options

#: Python with PyTorch and the other libraries loaded, and what MONAI takes in addition, bytes.
PROGRAM_BYTES, MONAI_BYTES = 450_000_000, 100_000_000
#: Batches of dot products, windows and maps in matching, bytes.
MATCHING_BYTES = 150_000_000
#: Memory for each point, bytes: indices of its nodes, results, and reasons in words.
POINT_BYTES = 2_000
#: Memory for fitting a field, bytes for each voxel of the network grid: whitened levels, their coarse copies, and the
#: linear system.
FIELD_BYTES = 200
#: Temporary memory while the MIND level is computed, bytes.
HAND_MADE_BYTES = 150_000_000
#: Channels of the MIND level: 12 pairs of patches at each of two distances.
MIND_CHANNELS = 24


@dataclass(frozen=True, eq=False)
class MemoryEstimate:
    """The estimated memory of a match.

    Attributes:
        peak_bytes: Peak memory of the process, bytes.
        fixed_network: The grid of the network's input for the fixed scan.
        moving_network: The grid of the network's input for the moving scan.
        stages: Descriptions of the stages of the match.
    """

    peak_bytes: int
    fixed_network: Grid
    moving_network: Grid
    stages: tuple[str, ...]


def estimate_memory(
    spec: ModelSpec, extraction: ExtractionOptions, options: Options, fixed: Grid, moving: Grid, count: int
) -> MemoryEstimate:
    """Estimate the peak memory of a match.

    Args:
        spec: The model.
        extraction: The options of feature extraction.
        options: The options of the match.
        fixed: Grid of the fixed scan.
        moving: Grid of the moving scan.
        count: Number of points.
    """
    networks = network_grid(fixed, spec), network_grid(moving, spec)
    # The network computes in float32; its levels are rounded after the MIND level has been computed.
    learned = [4 * _learned_numbers(spec, extraction, network) for network in networks]
    hand_made = [_hand_made_bytes(spec, extraction, grid) for grid in (fixed, moving)]
    pyramids = [pyramid_bytes(spec, extraction, grid) for grid in (fixed, moving)]
    # Scans are stored with two bytes a voxel; preparation holds float32 copies before and after resampling.
    scans = 2 * (fixed.size + moving.size)
    prepared = 4 * max(grid.size + network.size for grid, network in zip((fixed, moving), networks, strict=True))
    encoding = max(_network_bytes(spec, network) for network in networks) if extraction.network_levels else 0
    # Windows are processed a few at a time. Maps of norms on the whole grid are made only for a search without
    # refinement or on the voxels of the image.
    whole = options.search_grid == "image" or not options.refine
    grids = [n if options.search_grid == "network" else s for n, s in zip(networks, (fixed, moving), strict=True)]
    norms = 4 * len(extraction.levels) * sum(grid.size for grid in grids) if whole else sum(learned) // 20
    field = FIELD_BYTES * networks[0].size if options.fits_field(extraction) else 0
    matching = sum(pyramids) + norms + field + MATCHING_BYTES + POINT_BYTES * count
    first, second = (
        prepared + max(encoding, network + mind + HAND_MADE_BYTES)
        for network, mind in zip(learned, hand_made, strict=True)
    )
    program = PROGRAM_BYTES if extraction.network_levels else PROGRAM_BYTES * 2 // 3
    if extraction.network_levels and spec.latent.kind == "autoencoder":
        program += MONAI_BYTES
    peak = program + scans + max(first, pyramids[0] + second, matching)
    stages = ["read both scans"]
    if extraction.network_levels:
        draws = max(1, extraction.noise_samples)
        stages.append(f"encode each scan and read {len(extraction.network_levels)} levels, {draws} pass(es)")
    if MIND in extraction.levels:
        stages.append("compute the hand-made level")
    if options.prior == "affine":
        stages.append("match textured places everywhere and fit an affine to what agrees")
    radius = "everywhere" if options.prior == "none" else f"within {options.radius_mm():g} mm of where it is expected"
    stages.append(f"look for {count} point(s) {radius}")
    if options.fits_field(extraction) and count > MANY:
        stages.append("align neighbourhoods at the nodes of a grid and read positions and verdicts in between")
    elif options.refine:
        stages.append("refine with fine levels and neighbours, between voxels")
    if options.confidence:
        stages.append("match back")
    return MemoryEstimate(int(peak), networks[0], networks[1], tuple(stages))


def pyramid_bytes(spec: ModelSpec, extraction: ExtractionOptions, grid: Grid) -> int:
    """Bytes of all feature maps of a scan, in memory and on disk.

    Args:
        spec: The model.
        extraction: The options of feature extraction.
        grid: Grid of the scan.
    """
    learned = _number_bytes(extraction) * _learned_numbers(spec, extraction, network_grid(grid, spec))
    return learned + _hand_made_bytes(spec, extraction, grid)


def encoding_bytes(spec: ModelSpec, grid: Grid, *, spare: bool = False) -> int:
    """Peak memory of encoding a scan beyond the memory in use before, bytes.

    Args:
        spec: The model.
        grid: Grid of the scan.
        spare: Whether the slower mode that saves memory is used.
    """
    network = network_grid(grid, spec)
    return 4 * (grid.size + network.size) + _network_bytes(spec, network, spare=spare)


@dataclass(frozen=True)
class EncodingPlan:
    """How a scan will be encoded in the free memory.

    Attributes:
        needed_bytes: Memory that encoding takes beyond the memory in use before.
        left_bytes: Free memory; None where the system does not report it.
        slabs: Whether the network processes the scan in slabs of planes, with the same result as for the whole scan.
        spare: Whether the slower mode that saves memory is used.
    """

    needed_bytes: int
    left_bytes: int | None
    slabs: bool
    spare: bool

    @property
    def fits(self) -> bool:
        """Whether the free memory suffices, as far as it is known."""
        return self.left_bytes is None or self.needed_bytes <= self.left_bytes

    def __str__(self) -> str:
        way = "in exact slabs of planes" if self.slabs else "whole"
        if self.spare and self.slabs:
            way += ", as little as possible kept between them"
        left = "" if self.left_bytes is None else f", {self.left_bytes / 1e9:.1f} GB are left"
        return f"{way}: {self.needed_bytes / 1e9:.1f} GB{left}{'' if self.fits else ': DOES NOT FIT'}"


def plan_encoding(spec: ModelSpec, grid: Grid, left_bytes: int | None) -> EncodingPlan:
    """Choose the fastest mode of encoding that fits into memory, or the most economical one if none does.

    Args:
        spec: The model.
        grid: Grid of the scan.
        left_bytes: Free memory; None where the system does not report it.
    """
    slabs = spec.latent.kind == "autoencoder"
    plan = EncodingPlan(encoding_bytes(spec, grid), left_bytes, slabs, spare=False)
    return plan if plan.fits else EncodingPlan(encoding_bytes(spec, grid, spare=True), left_bytes, slabs, spare=True)


def _number_bytes(extraction: ExtractionOptions) -> int:
    """Bytes of one number of the features."""
    return 2 if extraction.numbers == "float16" else 4


def _hand_made_bytes(spec: ModelSpec, extraction: ExtractionOptions, grid: Grid) -> int:
    """Bytes of the MIND level of a scan, which has no padding."""
    if MIND not in extraction.levels:
        return 0
    respaced = spec.grid.kind == "respace"
    seen = grid.respaced(spec.grid.spacing_mm) if respaced else network_grid(grid, spec)
    return _number_bytes(extraction) * MIND_CHANNELS * seen.size


def _learned_numbers(spec: ModelSpec, extraction: ExtractionOptions, network: Grid) -> int:
    """Size of the feature maps that the network computes for one scan, as a number of values."""
    total = 0
    widths = list(spec.unet["num_channels"])
    latent = prod(n // spec.latent.stride for n in network.shape)
    for name in extraction.network_levels:
        if not name.startswith("up"):
            continue
        depth = len(widths) - 1 - int(name[2:])
        # Each decoder block but the last ends with upsampling.
        total += widths[depth] * (latent >> (3 * max(0, depth - 1)))
    return total


def _network_bytes(spec: ModelSpec, network: Grid, *, spare: bool = False) -> int:
    """Bytes of the activations of the widest stage and of the weights."""
    latent = prod(n // spec.latent.stride for n in network.shape)
    widths = list(spec.unet["num_channels"])
    # The skip connections of every stage are kept. The finest decoder block holds its input, the concatenation, its
    # normalisation, and the copies that the convolution makes.
    blocks = int(spec.unet.get("num_res_blocks", 2)) + 1
    skips = sum(4 * width * blocks * (latent >> (3 * depth)) for depth, width in enumerate(widths))
    activations = skips + 4 * latent * (4 * (widths[0] + widths[1]) + widths[1])
    if spec.latent.kind == "autoencoder":
        activations = max(activations, encoder_bytes(spec, network.size, spare=spare))
    return int(activations) + 700_000_000 * (spec.latent.kind == "autoencoder") + 60_000_000
