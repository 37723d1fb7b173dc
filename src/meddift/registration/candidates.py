"""Dense matching from several starts with several kinds of descriptors; the candidate that fits best is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from meddift.errors import NoCorrespondenceError
from meddift.geometry import AffineTransform
from meddift.matching.cost_volume import cost_volume
from meddift.matching.descriptors import unit, unit_
from meddift.registration.compared import PASSES_MM, ComparedScans, Maps, Parts
from meddift.registration.dense import couple
from meddift.registration.feature_map import fused_maps
from meddift.registration.field import TensorField
from meddift.registration.smoothness import Smoothness
from meddift.registration.start import Start
from meddift.registration.support import Support, judge_support
from meddift.system.progress import Progress
from meddift.system.threads import side_by_side

#: Voxels between two nodes, and radius of the window in which each node is searched, voxels.
STRIDE, RADIUS = 2, 3
#: Smoothness of the dense displacements.
DENSE = Smoothness(bending=0.3)
#: Smallest share of the body that must be supported; below it the scans have no reliable correspondence.
LEAST_SUPPORT = 0.1
#: Starts or candidates count as one if their median difference is below this share of a voxel of the next pass.
ALIKE = 0.5
#: Number of voxels at which candidates are compared.
COMPARED = 40_000


@dataclass(frozen=True, eq=False)
class Candidate:
    """A field found by dense matching.

    Attributes:
        name: Which start and which descriptors it comes from.
        parts: Its field for each sliding group.
        affine: The affine part of its start.
        support: Where neighbouring nodes agree with it.
    """

    name: str
    parts: Parts
    affine: AffineTransform
    support: Support


def match_densely(
    scans: ComparedScans, starts: Sequence[Start], report: Progress
) -> tuple[Candidate, dict[str, float]]:
    """Match the nodes of a grid around their expected positions, coarse to fine, and choose the best candidate.

    Args:
        scans: The fixed and the moving scan.
        starts: Initial transforms, found in one or several ways.
        report: Called with stage and fraction as work goes on.

    Returns:
        The best candidate, and for each candidate by name the mean cosine of the finest level under it, best first.

    Raises:
        NoCorrespondenceError: if too few matches agree with their neighbours.
    """
    begun: list[tuple[Start, Parts]] = []
    for start in starts:
        begin = (TensorField.sampled(start.transform, scans.grid_of(PASSES_MM[0]), scans.device),) * scans.groups
        if all(_apart(scans, begin, other) > ALIKE * PASSES_MM[0] for _, other in begun):
            begun.append((start, begin))
    coarse = _matched_coarsely(scans, begun, report)
    report("matching every place", 0.4)
    finer = side_by_side(coarse, lambda each: _pass(scans, each[2], scans.maps), device=scans.device)
    best: Candidate | None = None
    evidence: dict[str, float] = {}
    for (name, start, _), (fine, support) in zip(coarse, finer, strict=True):
        evidence[name] = _agreement(scans, fine)
        if best is None or evidence[name] > evidence[best.name]:
            best = Candidate(name, fine, start.affine, support)
    assert best is not None
    nodes = scans.mask_on(best.support.grid)
    # If the mask is smaller than the node spacing, the share cannot be estimated.
    share = float(best.support.supported[nodes].float().mean()) if bool(nodes.any()) else 1.0
    if share < LEAST_SUPPORT:
        raise NoCorrespondenceError(
            f"only {100 * share:.0f} % of the fixed scan have matches that agree with their neighbours: "
            "the scans have no reliable correspondence"
        )
    return best, dict(sorted(evidence.items(), key=lambda item: -item[1]))


def _matched_coarsely(
    scans: ComparedScans, begun: Sequence[tuple[Start, Parts]], report: Progress
) -> list[tuple[str, Start, Parts]]:
    """Coarse candidates from each start with each kind of descriptors: name, start, and field."""
    kinds = [(scans.fine, scans.coarse_maps())]
    if scans.semantic and not all(start.near for start, _ in begun):
        kinds.append(("network", fused_maps((scans.fixed.levels, scans.moving.levels), kinds[0][1], scans.semantic)))
    report("matching every place, coarsely", 0.1)
    tried = [
        (start, begin, name, maps) for start, begin in begun for name, maps in (kinds[:1] if start.near else kinds)
    ]
    passed = side_by_side(tried, lambda each: _pass(scans, each[1], each[3])[0], device=scans.device)
    coarse: list[tuple[str, Start, Parts]] = []
    for (start, _, name, _), found in zip(tried, passed, strict=True):
        if all(_apart(scans, found, other) > ALIKE * PASSES_MM[1] for _, _, other in coarse):
            coarse.append((f"start by {start.name}, field by {name}", start, found))
    return coarse


def _apart(scans: ComparedScans, one: Parts, other: Parts) -> float:
    """Median difference of two fields on the same grid in the body, mm."""
    world = one[0].grid.voxel_centers_on(scans.device)
    away = (scans.moved(one, world) - scans.moved(other, world)).norm(dim=-1)
    body = scans.mask_on(one[0].grid).reshape(-1)
    return float((away[body] if bool(body.any()) else away).median())


def _pass(scans: ComparedScans, current: Parts, maps: Maps) -> tuple[Parts, Support]:
    """Match every node of the fixed map's grid in a window around its position under a field, and smooth that."""
    fixed, moving = maps
    work = fixed.grid
    places = scans.moved(current, work.voxel_centers_on(scans.device))
    shown = scans.counted(places).reshape(work.shape)
    described = unit_(moving.at(places)).reshape(*work.shape, -1).mul_(shown[..., None])
    nodes = work.strided(STRIDE)
    wanted = scans.mask_on(nodes)
    if not bool(wanted.any()):  # the mask is smaller than the node spacing
        wanted = torch.ones_like(wanted)
    volume = cost_volume(fixed.values, described, shown.float(), wanted, radius=RADIUS, stride=STRIDE)
    centers = nodes.voxel_centers_on(scans.device)
    group = None if scans.sliding is None else scans.group_of(centers)[wanted.reshape(-1)]
    found = couple(volume, DENSE, group=group, groups=scans.groups)
    parts = tuple(
        TensorField.moving(centers, part.apply(centers + work.vectors_to_world(step.double().reshape(-1, 3))), nodes)
        for part, step in zip(current, found.displacements, strict=True)
    )
    result = scans.moved(parts, centers)
    support = judge_support(volume, found, nodes, scans.counted(result).reshape(nodes.shape))
    return parts, support


def _agreement(scans: ComparedScans, current: Parts) -> float:
    """Mean cosine of the finest level over voxels of the body under a field; 0 counts outside the moving scan."""
    fixed, moving = scans.maps
    rows = scans.mask_on(fixed.grid).reshape(-1).nonzero()[:, 0]
    rows = rows[:: max(1, len(rows) // COMPARED)]
    places = scans.moved(current, fixed.grid.voxel_centers_on(scans.device)[rows])
    cosine = (unit_(moving.at(places)) * unit(fixed.values.reshape(-1, fixed.channels)[rows])).sum(dim=1)
    return float((cosine * scans.counted(places)).mean())
