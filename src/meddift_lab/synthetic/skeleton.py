"""Drawing the bones of the chest phantom onto a canvas."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from meddift_lab.synthetic.anatomy import Anatomy, smooth_path, vector
from meddift_lab.synthetic.drawing import Canvas, Layer, smooth_noise

Floats = NDArray[np.float64]


def draw_skeleton(canvas: Canvas, anatomy: Anatomy, generator: np.random.Generator) -> Layer:
    """Draw spine, ribs with cartilages, sternum, clavicles, scapulae and arms.

    Bone is drawn as an outer cortex and an inner marrow, two layers of the same shapes.

    Returns:
        (X, Y, Z) float32, the fraction of each voxel that is bone.
    """
    cortex, marrow, cartilage = canvas.empty(), canvas.empty(), canvas.empty()
    _draw_ribs(canvas, anatomy, cortex, marrow, cartilage)
    _draw_girdle(canvas, anatomy, cortex, marrow)
    _draw_arches(canvas, anatomy, cortex)
    texture = smooth_noise(canvas.grid, generator, scale_mm=4)
    canvas.paint(cartilage, 105.0)
    canvas.paint(cortex, anatomy.bone_hu)
    canvas.paint(marrow, 0.28 * anatomy.bone_hu + 18 * texture)
    return np.maximum(cortex, _draw_spine(canvas, anatomy, texture))


def _draw_ribs(canvas: Canvas, anatomy: Anatomy, cortex: Layer, marrow: Layer, cartilage: Layer) -> None:
    """Draw the twelve pairs of ribs and the sternum."""
    for number in range(1, 13):
        for side in (-1, 1):
            bone, gristle = anatomy.rib(number, side)
            radius = anatomy.rib_radius * (0.8 if number in (1, 11, 12) else 1.0)
            # A rib is higher than it is thick: draw two rods, one above the other.
            widths = np.interp(np.linspace(0, 1, len(bone)), [0, 0.15, 0.6, 1], [0.85, 0.95, 0.9, 1.05]) * radius
            for offset in (-1.6, 1.6):
                canvas.tube(cortex, bone + vector(0, 0, offset), widths * 0.85)
                canvas.tube(marrow, bone + vector(0, 0, offset), widths * 0.85 - 1.5)
            if len(gristle):
                canvas.tube(cartilage, gristle, radius * 0.95)
    path = anatomy.sternum
    wide = np.interp(np.arange(12), [0, 2, 4, 8, 10, 11], [22, 18, 10, 13, 9, 5])
    for part in np.linspace(-1, 1, 5):
        shifted = path + np.stack([part * wide, 0 * wide - 2 * np.abs(part), 0 * wide], axis=1)
        canvas.tube(cortex, shifted, 5.5)
        canvas.tube(marrow, shifted, 3.9)


def _draw_girdle(canvas: Canvas, anatomy: Anatomy, cortex: Layer, marrow: Layer) -> None:
    """Draw clavicles, scapulae and the upper arms, which are raised beside the head."""
    top = float(anatomy.level(1.3))
    front = float(anatomy.front_y(anatomy.level(2.4)))
    shoulder = anatomy.shoulder_width - 32
    for side in (-1, 1):
        knots = []
        for x, z in ((20.0, float(anatomy.level(2.3))), (55.0, top - 10), (95.0, top - 2), (shoulder - 14, top + 6)):
            # Just under the skin, but not in front of the end of the sternum.
            knots.append([side * x, min(anatomy.body_front(x, z) - 0.8 * anatomy.fat - 11, front + 6), z])
        clavicle = smooth_path(knots)
        canvas.tube(cortex, clavicle, 6.0)
        canvas.tube(marrow, clavicle, 3.6)
        joint = np.array([side * shoulder, front - 58, top + 6])
        canvas.tube(cortex, [joint, joint + vector(side * 4, -2, 60)], [20, 12])
        canvas.tube(marrow, [joint, joint + vector(side * 4, -2, 60)], [18, 7])
        # The scapula is a fan of rods from the joint to its medial border, which follows the rib cage.
        for level in np.linspace(2.6, 7.2, 16):
            z = float(anatomy.level(level))
            border = anatomy.cage_point(np.array([0.30 * np.pi]), side, z)[0]
            outward = border - vector(0, float(anatomy.cage_center_y(z)), z)
            border = border + 13 * outward / np.linalg.norm(outward)
            neck = joint + vector(-side * 22, -8, -8)
            bulge = (neck + border) / 2 + vector(side * 9, -14, 0)
            canvas.tube(cortex, smooth_path([neck, bulge, border]), [2.6] * 11)
        spine = [joint + vector(side * 2, -26, 4), joint + vector(-side * 40, -44, -10)]
        canvas.tube(cortex, spine, [4.5, 3.5])


def _draw_arches(canvas: Canvas, anatomy: Anatomy, cortex: Layer) -> None:
    """Draw pedicles, laminae, transverse and spinous processes of each vertebra."""
    for number in range(-1, 15):
        z = float(anatomy.level(number))
        body = np.array([0.0, float(anatomy.spine_y(z)), z])
        for side in (-1, 1):
            pedicle = body + vector(side * 11, -12, 4)
            lamina = body + vector(side * 11, -27, 0)
            canvas.tube(cortex, [pedicle, lamina, body + vector(0, -34, -5)], [3.6, 3.4, 3.2])
            canvas.tube(cortex, [lamina, body + vector(side * 30, -36, 3)], [4.4, 3.6])
        canvas.tube(cortex, [body + vector(0, -34, -5), body + vector(0, -50, -18)], [3.4, 3.0])


def _draw_spine(canvas: Canvas, anatomy: Anatomy, texture: Layer) -> Layer:
    """Draw vertebral bodies, discs and spinal canal; returns the vertebral body fraction of each voxel, (X, Y, Z)."""
    x, y, z = canvas.axes()
    heights = z.ravel()
    middle = anatomy.spine_y(heights).astype(np.float32)[None, None, :]
    counts = np.arange(-3, 20)
    # Fractional vertebra number at each height; a disc lies halfway between two whole numbers.
    number = np.interp(-heights, -anatomy.level(counts), counts).astype(np.float32)[None, None, :]
    pitch = np.float32(anatomy.vertebra_pitch)
    growth = 1 + (number - 6) * np.float32(0.018)
    # A vertebral body is narrower in its middle than at its end plates.
    phase = number - np.rint(number)
    waist = growth * (1 - np.float32(0.10) * np.cos(2 * np.pi * phase))
    offset = y - middle
    level = np.sqrt((x / 17.5) ** 2 + (offset / 14.0) ** 2) / waist
    # The back of a vertebral body is flat; the spinal canal begins there.
    column = np.maximum((level - 1) * 15, -offset - 12).astype(np.float32)
    plate = (np.abs(phase) - np.float32(0.36)) * pitch
    body = np.maximum(column, plate)
    disc = canvas.cover(column + np.float32(1)) * np.float32(1)
    canal = (np.sqrt(x * x + (offset + 20) ** 2) - np.float32(9.5)).astype(np.float32)
    canvas.paint(canvas.cover(canal), -40.0)
    canvas.paint(canvas.cover(canal + np.float32(4.0)), 38.0)
    canvas.paint(disc, 85.0)
    share = canvas.cover(body)
    canvas.paint(share, 0.75 * anatomy.bone_hu)
    canvas.paint(canvas.cover(body + np.float32(1.8)), 0.27 * anatomy.bone_hu + 25 * texture)
    return share
