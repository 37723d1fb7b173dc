"""A synthetic chest CT, different for each seed, in which all structures are known exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from meddift.errors import OptionsError
from meddift.geometry import Grid
from meddift.points import Points
from meddift.volume import Volume
from meddift_lab.synthetic.anatomy import Anatomy, vector
from meddift_lab.synthetic.deformation import triple
from meddift_lab.synthetic.degrade import add_noise
from meddift_lab.synthetic.drawing import Canvas, Layer, smooth_noise
from meddift_lab.synthetic.organs import (
    Surfaces,
    draw_abdomen,
    draw_body_wall,
    draw_great_vessels,
    draw_heart,
    draw_lungs,
    random_inside,
    surfaces,
)
from meddift_lab.synthetic.skeleton import draw_skeleton
from meddift_lab.synthetic.table import table_hounsfield
from meddift_lab.synthetic.trees import Tree, grow_tree

Floats = NDArray[np.float64]

#: Centre of the field of view in the coordinates of the body, RAS mm; it leaves room for the table.
VIEW_CENTER = np.array([0.0, -22.0, -8.0])


@dataclass(frozen=True, eq=False)
class Phantom:
    """A drawn chest CT and its ground truth.

    Attributes:
        volume: (X, Y, Z) int16, HU, RAS.
        landmarks: Named landmarks that every phantom has, such as `carina`, `T4`, `rib5-left-tip`; world RAS mm.
        branches: Bifurcations of vessels and airways inside the lungs, such as `right-artery-3`; world RAS mm.
        lesions: Centres of the nodules, `lesion-1`, `lesion-2`, ...; world RAS mm.
        lesion_radii_mm: (N,) float64, mean radius of each nodule.
        structures: (X, Y, Z) bool masks by name: `left lung`, `right lung`, `heart`, `aorta`, `liver`, `bone`, `body`.
        lung_low: (3,) least corner of the box around the lungs, world RAS mm.
        lung_high: (3,) greatest corner, world RAS mm.
        table_y: World y of the table's surface in the median plane, mm.
        seed: Seed from which it was drawn.
    """

    volume: Volume
    landmarks: Points
    branches: Points
    lesions: Points
    lesion_radii_mm: Floats
    structures: Mapping[str, Volume]
    lung_low: tuple[float, float, float]
    lung_high: tuple[float, float, float]
    table_y: float
    seed: int


def chest_phantom(
    seed: int,
    *,
    spacing_mm: float = 2.0,
    size_mm: Sequence[float] = (360.0, 280.0, 300.0),
    lesions: int = 3,
    noise_std_hu: float = 18.0,
    table: bool = True,
) -> Phantom:
    """Draw a chest CT.

    Body wall, bones, lungs with fissures, airways, arteries and veins, heart with chambers, great vessels,
    diaphragm, liver, stomach, spleen, nodules, table. Shapes have soft edges (partial volume), so that
    subvoxel positions are represented. Sizes, positions, HU and every branch depend on the seed.

    Args:
        seed: Equal seeds and options give equal voxels.
        spacing_mm: Voxel size, isotropic.
        size_mm: (3,) field of view along R, A and S; its centre is world (0, 0, 0). The chest has adult size:
            a smaller field of view crops it and does not scale it.
        lesions: Number of nodules in the lungs; fewer where the field of view contains no lung.
        noise_std_hu: Standard deviation of the quantum noise, HU; 0 for none.
        table: Whether the scanner's table is drawn.

    Returns:
        Phantom.

    Raises:
        OptionsError: if spacing or size are not positive, or the number of lesions is negative.
    """
    size = np.asarray(size_mm, dtype=np.float64)
    if size.shape != (3,) or not (size > 0).all() or not spacing_mm > 0 or lesions < 0 or not noise_std_hu >= 0:
        raise OptionsError(
            f"spacing, size and noise must be positive and lesions at least 0, got {spacing_mm} mm, {size_mm} mm, "
            f"{noise_std_hu} HU, {lesions}"
        )
    # One random stream for each part, so that changing one part does not change the others.
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(6)]
    anatomy = Anatomy.random(streams[0])
    pose = np.append(streams[0].uniform(-6, 6, 1), [0.0, streams[0].uniform(-8, 8)])
    center = VIEW_CENTER - pose
    shape = np.maximum(np.rint(size / spacing_mm), 1).astype(int)
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = center - spacing_mm * (shape - 1) / 2
    canvas = Canvas(Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine))

    place = surfaces(canvas, anatomy, streams[1])
    draw_body_wall(canvas, anatomy, place, streams[1])
    liver = draw_abdomen(canvas, anatomy, place, streams[1])
    lung = draw_lungs(canvas, anatomy, place, streams[2])
    heart = draw_heart(canvas, anatomy, place)
    aorta = draw_great_vessels(canvas, anatomy)
    bone = draw_skeleton(canvas, anatomy, streams[1])
    lung = lung * (1 - np.maximum(np.maximum(heart, aorta), bone))
    forks, fork_labels = _draw_trees(canvas, anatomy, place, streams[3])
    nodules, radii = _draw_nodules(canvas, place, lesions, streams[4])
    table_y = anatomy.back_y - 3.0
    if table:
        # Add the table only to the air fraction of each voxel, so that it does not overwrite skin.
        canvas.hounsfield += canvas.cover(-place.body) * (table_hounsfield(canvas.grid, top_y=table_y) + 1000)

    affine = affine.copy()
    affine[:3, 3] -= center
    grid = Grid(canvas.grid.shape, affine)
    volume = Volume(canvas.hounsfield, grid)
    if noise_std_hu:
        volume = add_noise(volume, streams[5], std_hu=noise_std_hu, correlation_mm=max(1.5, 0.9 * spacing_mm))
    hounsfield = np.clip(np.rint(volume.data), -1024, 3071).astype(np.int16)

    x = canvas.axes()[0]
    masks = {
        "left lung": (lung > 0.5) & (x < 0),
        "right lung": (lung > 0.5) & (x > 0),
        "heart": heart > 0.5,
        "aorta": aorta > 0.5,
        "liver": liver > 0.5,
        "bone": bone > 0.5,
        "body": place.body < 0,
    }
    names = _landmarks(anatomy)
    low, high = _lung_box(anatomy)
    return Phantom(
        volume=Volume(hounsfield, grid),
        landmarks=Points(np.stack(list(names.values())) - center, tuple(names)),
        branches=Points(forks - center, fork_labels),
        lesions=Points(nodules - center, tuple(f"lesion-{i + 1}" for i in range(len(nodules)))),
        lesion_radii_mm=radii,
        structures={name: Volume(mask, grid) for name, mask in masks.items()},
        lung_low=triple(low - center),
        lung_high=triple(high - center),
        table_y=float(table_y - center[1]),
        seed=seed,
    )


def _draw_trees(
    canvas: Canvas, anatomy: Anatomy, place: Surfaces, generator: np.random.Generator
) -> tuple[Floats, tuple[str, ...]]:
    """Draw airways, arteries and veins of both lungs; returns bifurcations well inside a lung, with names."""
    # Branches are drawn in lung tissue only, so that they do not cross the heart or the great vessels.
    lung = canvas.cover(place.lungs) * np.clip((-450 - canvas.hounsfield) / 100, 0, 1)
    blood, lumen, wall = canvas.empty(), canvas.empty(), canvas.empty()
    x, _, _ = canvas.axes()
    forks, labels = [], []
    for side, word, volume_share in ((1, "right", 1.0), (-1, "left", 0.85)):
        region = np.where((x * side > 0) & (place.lungs < -3.5), np.float32(1), np.float32(0))
        hilum = anatomy.hilum(side)
        outward = np.array([side * 0.8, -0.1, -0.35])
        plans = {
            "artery": (hilum + vector(0, 6, 8 if side < 0 else 2), 560, 0.78),
            "vein": (hilum + vector(-side * 4, 8, -12), 520, 0.75),
            "airway": (hilum + vector(0, -2, 0), 100, 0.95),
        }
        for kind, (root, count, thinnest) in plans.items():
            goals = random_inside(region, canvas, round(count * volume_share), generator)
            if len(goals) == 0:
                continue
            tree = grow_tree(root, outward, goals, generator=generator, terminal_radius_mm=thinnest)
            if kind == "airway":
                _draw_airways(canvas, tree, lumen, wall)
            else:
                for path, radius in zip(tree.paths, tree.radii, strict=True):
                    canvas.tube(blood, path, radius)
            keep = _well_inside(canvas, place, tree.forks) & (tree.fork_radii > 0.9)
            forks.append(tree.forks[keep])
            labels += [f"{word}-{kind}-{i + 1}" for i in range(int(keep.sum()))]
    lumen *= lung
    wall *= lung
    carina = anatomy.carina
    high = vector(0.0, carina[1] + 16, float(anatomy.level(-2)))
    windpipe = np.stack([high, vector(0.5, carina[1] + 8, carina[2] + 55), carina])
    canvas.tube(lumen, windpipe, [8.5, 8.5, 9])
    canvas.tube(wall, windpipe, [10.3, 10.3, 10.8])
    for side, radius in ((1, 6.6), (-1, 5.6)):
        stem = np.vstack([carina, anatomy.hilum(side) + vector(0, -2, 0)])
        canvas.tube(lumen, stem, [radius + 1, radius])
        canvas.tube(wall, stem, [radius + 2.6, radius + 1.6])
    canvas.paint(blood * lung, min(anatomy.blood_hu, 220.0) - 5)
    canvas.paint(wall, 5.0)
    canvas.paint(lumen, -985.0)
    return np.concatenate([np.zeros((0, 3)), *forks]), tuple(labels)


def _draw_airways(canvas: Canvas, tree: Tree, lumen: Layer, wall: Layer) -> None:
    """Draw lumen and wall of the airways; the walls of the smallest airways are too thin to be visible."""
    for path, radius in zip(tree.paths, tree.radii, strict=True):
        canvas.tube(lumen, path, radius)
        if radius > 1.0:
            # A thin wall is drawn as a wider tube, over which the lumen is painted later.
            canvas.tube(wall, path, radius * 1.18 + 0.2)


def _well_inside(canvas: Canvas, place: Surfaces, positions: Floats) -> NDArray[np.bool_]:
    """(N,) bool, which points lie in the field of view and at least 3 mm inside a lung."""
    depth = Volume(place.lungs, canvas.grid).at(positions) if len(positions) else np.zeros(0)
    return np.asarray((depth < -3) & canvas.grid.contains(positions))


def _draw_nodules(
    canvas: Canvas, place: Surfaces, count: int, generator: np.random.Generator
) -> tuple[Floats, Floats]:
    """Draw solid nodules with lobulated edges and a few spicules; returns centres (N, 3) and radii (N,), mm."""
    region = np.where(place.lungs < -7, np.float32(1), np.float32(0))
    candidates = random_inside(region, canvas, 40 * max(count, 1), generator)
    texture = smooth_noise(canvas.grid, generator, scale_mm=7) if count else canvas.empty()
    centers: list[Floats] = []
    radii: list[float] = []
    for candidate in candidates:
        if len(centers) == count:
            break
        if any(np.linalg.norm(candidate - other) < 30 for other in centers):
            continue
        radius = float(np.exp(generator.uniform(np.log(3.5), np.log(13.0))))
        lobes = float(generator.uniform(0.05, 0.2)) * radius
        box = canvas.box(candidate - 1.6 * radius - 4, candidate + 1.6 * radius + 4)
        if box is None:
            continue
        x, y, z = canvas.local_axes(box)
        scale = np.exp(generator.normal(0, 0.12, 3)).astype(np.float32)
        scale /= np.float32(scale.prod() ** (1 / 3))
        offsets = [axis - np.float32(c) for axis, c in zip((x, y, z), candidate, strict=True)]
        reach = np.sqrt(sum((o / s) ** 2 for o, s in zip(offsets, scale, strict=True)))
        share = np.clip(0.5 + (radius + lobes * np.clip(texture[box], -2, 2) - reach) / canvas.spacing_mm, 0, 1)
        layer = canvas.empty()
        for _ in range(int(generator.integers(0, 7))):
            ray = generator.normal(size=3)
            tip = candidate + ray / np.linalg.norm(ray) * radius * generator.uniform(1.3, 1.9)
            canvas.capsule(layer, candidate, tip, radius_start=0.35 * radius, radius_end=0.4)
        layer[box] = np.maximum(layer[box], share)
        canvas.paint(layer, float(generator.uniform(-10, 60)))
        centers.append(candidate)
        radii.append(radius)
    return np.asarray(centers, dtype=np.float64).reshape(-1, 3), np.asarray(radii, dtype=np.float64)


def _landmarks(anatomy: Anatomy) -> dict[str, Floats]:
    """Named landmarks in the coordinates of the body, each (3,) RAS mm."""
    places: dict[str, Floats] = {"carina": anatomy.carina}
    for number in range(1, 13):
        z = float(anatomy.level(number))
        places[f"T{number}"] = np.array([0.0, float(anatomy.spine_y(z)), z])
        for side, word in ((-1, "left"), (1, "right")):
            bone, _ = anatomy.rib(number, side)
            places[f"rib{number}-{word}-tip"] = bone[-1]
            places[f"rib{number}-{word}-lateral"] = bone[int(np.abs(bone[:, 0]).argmax())]
    aorta = anatomy.aorta
    places["aortic arch"] = aorta[int(aorta[:, 2].argmax())]
    places["manubrium"] = anatomy.sternum[0]
    places["xiphoid"] = anatomy.sternum[-1]
    places["heart apex"] = anatomy.in_heart(1.0, 0.0, 0.0)
    places["heart center"] = anatomy.heart_center
    for side, word, name in ((1, "right", "liver dome"), (-1, "left", "left dome")):
        top = anatomy.dome_top(side)
        places[name] = np.array([side * anatomy.cage_width * 0.5, float(anatomy.cage_center_y(top)) + 4, top])
        places[f"{word} hilum"] = anatomy.hilum(side)
    return places


def _lung_box(anatomy: Anatomy) -> tuple[Floats, Floats]:
    """Least and greatest corner, (3,) each, of the box around both lungs in the coordinates of the body, RAS mm."""
    z = np.linspace(anatomy.recess_z, float(anatomy.level(0.75)), 40)
    inset = 6.5
    width = float(anatomy.cage_half_width(z).max()) - inset
    back = float((anatomy.cage_center_y(z) - anatomy.cage_half_depth(z)).min()) + inset
    front = float(anatomy.front_y(z).max()) - inset
    return np.array([-width, back, z[0]]), np.array([width, front, z[-1]])
