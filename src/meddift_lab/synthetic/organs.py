"""Drawing the body wall and the organs of the chest phantom onto a canvas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from meddift_lab.synthetic.anatomy import SQUARENESS, Anatomy, smooth_path, vector
from meddift_lab.synthetic.drawing import Canvas, Layer, smooth_maximum, smooth_noise

FAT_HU = -100.0


@dataclass(frozen=True, eq=False)
class Surfaces:
    """Signed distances to surfaces of the body, negative inside, mm; each (X, Y, Z) float32.

    Attributes:
        cage: Distance to the surface of the rib cage, through the middle of the ribs.
        body: Distance to the skin.
        domes: Distance to the diaphragm, both sides; inside is below it.
        right_dome: Distance to the right side of the diaphragm; inside is below it.
        heart: Distance to the surface of the heart.
        lungs: Distance to the surface of both lungs.
    """

    cage: Layer
    body: Layer
    domes: Layer
    right_dome: Layer
    heart: Layer
    lungs: Layer


def surfaces(canvas: Canvas, anatomy: Anatomy, generator: np.random.Generator) -> Surfaces:
    """Compute the surfaces on which the drawing of all other structures is based."""
    x, y, z = canvas.axes()
    heights = z.ravel()
    cage = _section_distance(
        canvas, anatomy.cage_half_width(heights), anatomy.cage_half_depth(heights), anatomy.cage_center_y(heights)
    )
    body = _section_distance(
        canvas, anatomy.body_half_width(heights), anatomy.body_half_depth(heights), anatomy.body_center_y(heights)
    )
    sides = {side: _dome_distance(canvas, anatomy, side) for side in (-1, 1)}
    # Deform the ideal shapes by random hollows and bulges of a few mm.
    uneven = smooth_noise(canvas.grid, generator, scale_mm=60)
    # The diaphragm is lower between the domes, and at the back, where it leaves room for the lungs beside the spine.
    behind = np.float32(anatomy.cage_center_y(0.0) - 18) - y
    middle = smooth_maximum(np.abs(x) - np.float32(45) + 0 * y, z - np.float32(anatomy.dome_top(1) - 22) + 0 * y, 10.0)
    middle = smooth_maximum(middle, behind + 0 * middle, 16.0)
    domes = -smooth_maximum(-sides[-1], -sides[1], 12.0)
    domes = -smooth_maximum(-domes, -middle, 14.0)
    # Lower end of the recess between diaphragm and chest wall; it is lower at the back than in front.
    recess = z - np.float32(anatomy.recess_z) - np.float32(0.22) * (y - np.float32(anatomy.spine_y(0.0))) + 0 * x
    domes = -smooth_maximum(-domes, -recess, 14.0) + 2 * uneven
    heart = canvas.ellipsoid_distance(anatomy.heart_center, anatomy.heart_radii, anatomy.heart_axes) + 3 * uneven

    lungs = smooth_maximum(cage + np.float32(6.5), -domes, 3.0)
    apex = np.float32(anatomy.level(0.75))
    lungs = smooth_maximum(lungs, z - apex + 0 * x, 30.0)
    lungs = smooth_maximum(lungs, -_mediastinum(canvas, anatomy, heart), 6.0)
    return Surfaces(cage, body, domes, sides[1] + 2 * uneven, heart, lungs)


def _section_distance(canvas: Canvas, half_width: ArrayLike, half_depth: ArrayLike, center_y: ArrayLike) -> Layer:
    """Signed distance, mm, to a tube with superelliptic cross-sections, measured along the ray from its centre."""
    x, y, _ = canvas.axes()
    width, depth, middle = (np.asarray(a, dtype=np.float32)[None, None, :] for a in (half_width, half_depth, center_y))
    offset = y - middle
    power = np.float32(SQUARENESS)
    level = ((np.abs(x) / width) ** power + (np.abs(offset) / depth) ** power) ** (1 / power)
    reach = np.sqrt(x * x + offset * offset)
    return np.asarray(reach * (1 - 1 / np.maximum(level, np.float32(0.02))), dtype=np.float32)


def _dome_distance(canvas: Canvas, anatomy: Anatomy, side: int) -> Layer:
    """Signed distance, mm, to one side of the diaphragm: the upper half of an ellipsoid on a column."""
    x, y, z = canvas.axes()
    top = anatomy.dome_top(side)
    radii = np.array([anatomy.cage_width * 0.53, anatomy.cage_depth * 0.93, 78.0], dtype=np.float32)
    middle_y = np.float32(anatomy.cage_center_y(top) + 4)
    dx = (x - np.float32(side * anatomy.cage_width * 0.5)) / radii[0]
    dy = (y - middle_y) / radii[1]
    dz = np.maximum(z - np.float32(top - radii[2]), 0) / radii[2]
    level = np.sqrt(dx * dx + dy * dy + dz * dz)
    return np.asarray((level - 1) * np.float32(70.0), dtype=np.float32)


def _mediastinum(canvas: Canvas, anatomy: Anatomy, heart: Layer) -> Layer:
    """Signed distance to the mediastinum, mm."""
    x, y, z = canvas.axes()
    spine_y = anatomy.spine_y(z.ravel()).astype(np.float32)[None, None, :]
    spine = np.sqrt(x * x + (0.85 * (y - spine_y)) ** 2) - np.float32(23)
    # A plate between the lungs, thin in front of and behind the great vessels and wide at the thoracic inlet.
    reach = (y - np.float32(anatomy.carina[1] + 14)) / np.float32(38)
    upper = np.clip((z - np.float32(anatomy.level(5.2))) / np.float32(45), 0, 1)
    lower = np.clip((np.float32(anatomy.level(6)) - z) / np.float32(30), 0, 1)
    half = np.float32(4) + (np.float32(18) + 8 * upper - 6 * lower) * np.exp(-(reach**4))
    sheet = (np.abs(x + np.float32(1.5)) - half) * np.float32(0.85)
    return np.asarray(np.minimum(np.minimum(heart - np.float32(4), spine), sheet), dtype=np.float32)


def draw_body_wall(canvas: Canvas, anatomy: Anatomy, place: Surfaces, generator: np.random.Generator) -> None:
    """Draw skin, fat and muscle, and fill chest and abdomen with fat, over which the organs are drawn later."""
    fat_texture = smooth_noise(canvas.grid, generator, scale_mm=12)
    streaks = smooth_noise(canvas.grid, generator, scale_mm=17)
    uneven = smooth_noise(canvas.grid, generator, scale_mm=90)
    canvas.paint(canvas.cover(place.body), 25.0)
    under_skin = place.body + np.float32(2.2)
    canvas.paint(canvas.cover(under_skin), FAT_HU + 8 * fat_texture)
    # Muscle fills the space under the fat; where it is thick (shoulders) there is fat between the muscles.
    depth = np.float32(anatomy.fat + 2.2) * (1 + np.float32(0.25) * np.clip(uneven, -1.6, 1.6))
    muscle = np.maximum(place.body + depth, -(place.cage + np.float32(6)))
    thick = np.clip((place.cage - np.float32(anatomy.muscle + 4)) / 12, 0, 1)
    streak = np.clip((np.abs(streaks) - 0.2) * -5, 0, 1) * np.clip(thick + 0.35, 0, 1)
    muscle_hu = np.float32(anatomy.muscle_hu) + (np.float32(FAT_HU) - np.float32(anatomy.muscle_hu)) * streak
    canvas.paint(canvas.cover(muscle), np.asarray(muscle_hu, dtype=np.float32))
    canvas.paint(canvas.cover(place.cage + np.float32(6)), FAT_HU + 6 * fat_texture)


def draw_abdomen(canvas: Canvas, anatomy: Anatomy, place: Surfaces, generator: np.random.Generator) -> Layer:
    """Draw diaphragm, liver, stomach with gas, and spleen; returns the liver fraction of each voxel, (X, Y, Z)."""
    x, y, z = canvas.axes()
    texture = smooth_noise(canvas.grid, generator, scale_mm=7)
    inside = place.cage + np.float32(7)
    canvas.paint(canvas.cover(smooth_maximum(place.domes, inside, 3.0)), anatomy.muscle_hu)
    below = smooth_maximum(place.domes + np.float32(3), inside + np.float32(3), 3.0)
    canvas.paint(canvas.cover(below), FAT_HU)
    top_left = anatomy.dome_top(-1)
    side_y = float(anatomy.cage_center_y(top_left))
    half = anatomy.cage_width
    spleen = canvas.ellipsoid_distance([-0.64 * half, side_y - 40, top_left - 52], [32, 26, 44])
    canvas.paint(canvas.cover(np.maximum(spleen, below)), np.float32(anatomy.liver_hu - 6) + 4 * texture)
    stomach = canvas.ellipsoid_distance([-0.44 * half, side_y + 14, top_left - 44], [40, 44, 40])
    stomach = np.maximum(stomach, below)
    canvas.paint(canvas.cover(stomach), 45.0)
    lumen = stomach + np.float32(4)
    canvas.paint(canvas.cover(lumen), 15.0 + 12 * texture)
    # The patient is supine: the gas rises to the front.
    gas_level = np.float32(side_y + generator.uniform(12, 34))
    canvas.paint(canvas.cover(np.maximum(lumen, gas_level - y + 0 * lumen)), -960.0)
    # The liver fills the right dome, and one lobe crosses the midline in front of the stomach.
    right = smooth_maximum(place.right_dome + np.float32(3), np.float32(-12) - x + 0.25 * y + 0 * z, 18.0)
    lobe = canvas.ellipsoid_distance([-8, side_y + 42, anatomy.dome_top(1) - 48], [62, 34, 34])
    liver = smooth_maximum(np.minimum(right, lobe), inside + np.float32(3), 4.0)
    share = canvas.cover(np.maximum(liver, below))
    canvas.paint(share, anatomy.liver_hu + 5 * texture)
    return share


def draw_lungs(canvas: Canvas, anatomy: Anatomy, place: Surfaces, generator: np.random.Generator) -> Layer:
    """Draw lung tissue with texture and fissures; returns the lung fraction of each voxel, (X, Y, Z)."""
    x, y, z = canvas.axes()
    share = canvas.cover(place.lungs)
    fine = smooth_noise(canvas.grid, generator, scale_mm=5)
    coarse = smooth_noise(canvas.grid, generator, scale_mm=40)
    # The patient is supine: the back of the lung holds more blood and is denser, by 0.4 HU per mm.
    hounsfield = np.float32(anatomy.lung_hu) + 18 * fine + 14 * coarse - np.float32(0.4) * y
    wave = 5 * smooth_noise(canvas.grid, generator, scale_mm=120)
    center_y = float(anatomy.cage_center_y(0.0))
    # The oblique fissures descend from back to front; the right lung also has a horizontal fissure.
    oblique = (
        (z - np.float32(anatomy.level(6))) * np.float32(0.62) + (y - np.float32(center_y)) * np.float32(0.78) + wave
    )
    horizontal = z - np.float32(anatomy.level(6.2)) + wave
    behind = (x < 0) | (oblique < 0)
    horizontal = np.where(behind, np.float32(99), horizontal)
    for fissure in (oblique, horizontal):
        sheet = np.clip(1 - np.abs(fissure) / canvas.spacing_mm, 0, 1) * np.float32(0.8 / canvas.spacing_mm)
        hounsfield += np.clip(sheet, 0, 1) * np.float32(600)
    canvas.paint(share, hounsfield)
    return share


def draw_heart(canvas: Canvas, anatomy: Anatomy, place: Surfaces) -> Layer:
    """Draw heart muscle and chambers; returns the heart fraction of each voxel, (X, Y, Z)."""
    turn, radii = anatomy.heart_axes, anatomy.heart_radii
    share = canvas.cover(place.heart)
    canvas.paint(share, 48.0 + 0.25 * (anatomy.blood_hu - 45))
    chambers = {
        (0.22, 0.36, 0.0): (0.52, 0.36, 0.40),  # left ventricle
        (0.12, -0.42, -0.05): (0.60, 0.30, 0.50),  # right ventricle
        (-0.62, 0.30, 0.15): (0.28, 0.42, 0.46),  # left atrium
        (-0.52, -0.36, -0.15): (0.34, 0.34, 0.46),  # right atrium
    }
    for center, size in chambers.items():
        distance = canvas.ellipsoid_distance(anatomy.in_heart(*center), radii * np.asarray(size), turn)
        canvas.paint(canvas.cover(distance), anatomy.blood_hu)
    return share


def draw_great_vessels(canvas: Canvas, anatomy: Anatomy) -> Layer:
    """Draw aorta with branches, caval veins, pulmonary trunk and oesophagus; returns the aorta fraction, (X, Y, Z)."""
    blood, sheath, aorta = canvas.empty(), canvas.empty(), canvas.empty()
    path = anatomy.aorta
    thick = anatomy.aorta_radius
    widths = np.interp(np.arange(len(path)), [0, 20, 40, len(path)], [thick * 1.15, thick, thick * 0.88, thick * 0.8])
    canvas.tube(aorta, path, widths)
    canvas.tube(sheath, path, widths + 3)
    carina, top = anatomy.carina, float(anatomy.level(anatomy.arch_level))
    right, left = anatomy.hilum(1), anatomy.hilum(-1)
    fork = np.array([-14.0, carina[1] + 20, carina[2] - 16])
    outflow = anatomy.in_heart(-0.15, -0.45, 0.55)
    high, inlet = float(anatomy.level(1.4)), carina[1]
    atrium_left, atrium_right = anatomy.in_heart(-0.7, 0.3, 0.1), anatomy.in_heart(-0.55, -0.36, -0.2)
    caval_x = atrium_right[0] + 3
    low = float(anatomy.level(16))
    tubes: list[tuple[list[ArrayLike], list[float]]] = [
        ([outflow, (outflow + fork) / 2 + vector(0, 6, 4), fork], [14, 13, 12.5]),
        ([fork, [8, carina[1] + 12, fork[2] - 2], right + vector(0, 6, 2)], [11, 9.5, 8]),
        ([fork, (fork + left) / 2 + vector(0, 2, 6), left + vector(0, 2, 12)], [11, 9.5, 8]),
        ([atrium_left, right + vector(-6, 8, -14)], [7, 5.5]),
        ([atrium_left, left + vector(8, 4, -10)], [7, 5.5]),
        (
            [[24, inlet + 24, high - 18], [25, inlet + 26, top - 8], [caval_x, atrium_right[1], atrium_right[2]]],
            [8, 9, 10],
        ),
        ([atrium_right, [caval_x + 2, atrium_right[1] - 14, atrium_right[2] - 34], [24, -18, low]], [12, 11.5, 11]),
        ([[-44, inlet + 26, high], [-18, inlet + 36, high - 24], [24, inlet + 26, high - 40]], [6, 6.5, 7]),
        ([[44, inlet + 26, high + 4], [26, inlet + 26, high - 24]], [6, 7]),
        ([[9, inlet + 22, top - 4], [16, inlet + 16, high - 6], [24, inlet + 12, high + 60]], [6.5, 5.5, 4]),
        ([[-5, inlet + 9, top], [-16, inlet + 14, high - 4], [-24, inlet + 12, high + 60]], [5, 4.5, 4]),
        ([[-17, inlet - 7, top], [-28, inlet - 4, high - 8], [-58, inlet + 8, high + 4]], [5.5, 5, 4.5]),
    ]
    for knots, radii in tubes:
        points = smooth_path(np.asarray([np.asarray(k, dtype=np.float64) for k in knots]))
        widths = np.interp(np.linspace(0, 1, len(points)), np.linspace(0, 1, len(radii)), radii)
        canvas.tube(blood, points, widths)
        canvas.tube(sheath, points, widths + 2)
    solid = np.clip((canvas.hounsfield + 60) / 40, 0, 1)  # fat goes around vessels in the lung, not into the heart
    canvas.paint(np.asarray(sheath * (1 - solid), dtype=np.float32), FAT_HU + 15)
    canvas.paint(np.maximum(blood, aorta), anatomy.blood_hu)
    z = np.linspace(float(anatomy.level(0)), float(anatomy.level(10.5)), 12)
    gullet = np.stack([np.interp(np.arange(12), [0, 6, 11], [-5, -6, -14]), anatomy.spine_y(z) + 30, z], axis=1)
    for radius, hounsfield in ((7.0, 35.0), (2.2, -250.0)):
        layer = canvas.empty()
        canvas.tube(layer, smooth_path(gullet), radius)
        canvas.paint(layer * (1 - aorta), hounsfield)
    return aorta


def random_inside(share: Layer, canvas: Canvas, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Uniformly random points in the voxels that a shape covers fully.

    Args:
        share: (X, Y, Z), covered fraction of each voxel.
        canvas: The scan being drawn, whose grid `share` lies on.
        count: Number of points.
        generator: Source of randomness.

    Returns:
        (count, 3) float64, world RAS mm; (0, 3) if no voxel is fully covered.
    """
    voxels = np.argwhere(share > 0.999)
    if len(voxels) == 0:
        return np.zeros((0, 3))
    picked = voxels[generator.integers(len(voxels), size=count)]
    return canvas.grid.index_to_world(picked + generator.uniform(-0.5, 0.5, picked.shape))
