"""The body plan of the chest phantom: continuous parameters, and the curves and places that follow from them.

Coordinates are those of the body: RAS mm, x = 0 in the median plane (the patient's left is negative),
y = 0 in the middle of the chest, z = 0 about the level of the sixth thoracic vertebra. Sizes are of an adult,
rounded from anatomy textbooks; they are chosen to look right, not to be a reference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Exponent of the superellipses that the cross-sections of cage and body are.
SQUARENESS = 2.4


@dataclass(frozen=True)
class Anatomy:
    """Parameters of one adult chest.

    Attributes:
        cage_width: Half width of the rib cage at its widest, mm.
        cage_depth: Half depth of the rib cage at its deepest, mm.
        vertebra_pitch: Distance between neighbouring vertebrae, mm.
        kyphosis: How far the middle of the spine lies behind its ends, mm.
        fat: Thickness of the subcutaneous fat, mm.
        muscle: Thickness of the muscle over the ribs, mm.
        shoulder_width: Half width of the body at the shoulders, mm.
        dome_right: Level of the top of the right diaphragm, in vertebrae (9.5 is between T9 and T10).
        dome_drop: How much lower the left dome is, mm.
        heart_scale: Size of the heart relative to the default.
        heart_shift: (3,) displacement of the heart from its default position, RAS mm.
        arch_level: Level of the top of the aortic arch, in vertebrae.
        carina_level: Level of the carina, in vertebrae.
        aorta_radius: Radius of the aorta, mm.
        rib_radius: Radius of the ribs, mm.
        rib_slope: How steeply the ribs descend, relative to the default.
        blood_hu: HU of blood in the great vessels; above 100 with contrast medium.
        lung_hu: Mean HU of lung parenchyma.
        liver_hu: HU of the liver.
        muscle_hu: HU of muscle.
        bone_hu: HU of cortical bone.
    """

    cage_width: float = 126.0
    cage_depth: float = 86.0
    vertebra_pitch: float = 21.5
    kyphosis: float = 12.0
    fat: float = 14.0
    muscle: float = 12.0
    shoulder_width: float = 172.0
    dome_right: float = 9.3
    dome_drop: float = 12.0
    heart_scale: float = 1.0
    heart_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    arch_level: float = 4.0
    carina_level: float = 5.0
    aorta_radius: float = 13.0
    rib_radius: float = 4.6
    rib_slope: float = 1.0
    blood_hu: float = 45.0
    lung_hu: float = -860.0
    liver_hu: float = 58.0
    muscle_hu: float = 50.0
    bone_hu: float = 620.0

    @classmethod
    def random(cls, generator: np.random.Generator) -> Anatomy:
        """A random adult; equal states of the generator give equal adults."""

        def about(middle: float, spread: float) -> float:
            return float(middle + spread * np.clip(generator.normal(), -1.8, 1.8))

        shift = generator.normal(0, 3.0, 3).clip(-5, 5)
        width = about(125, 5)
        return cls(
            cage_width=width,
            cage_depth=about(85, 4),
            vertebra_pitch=about(21.3, 0.6),
            kyphosis=about(12, 4),
            fat=float(generator.uniform(5, 20)),
            muscle=about(12, 2.5),
            shoulder_width=width + about(46, 4),
            dome_right=about(9.3, 0.35),
            dome_drop=about(12, 3),
            heart_scale=about(1.0, 0.06),
            heart_shift=(float(shift[0]), float(shift[1]), float(shift[2])),
            arch_level=about(4.0, 0.15),
            carina_level=about(5.0, 0.15),
            aorta_radius=about(12.5, 1.2),
            rib_radius=about(4.6, 0.35),
            rib_slope=about(1.0, 0.08),
            blood_hu=float(generator.uniform(35, 50) if generator.uniform() < 0.5 else generator.uniform(130, 280)),
            lung_hu=about(-855, 20),
            liver_hu=about(58, 8),
            muscle_hu=about(50, 5),
            bone_hu=about(620, 60),
        )

    # ------------------------------------------------------------------ levels and surfaces

    def level(self, vertebra: ArrayLike) -> Floats:
        """Height z, mm, of a vertebra counted from T1 = 1; T12 = 12, L1 = 13; fractions lie in between."""
        count = np.asarray(vertebra, dtype=np.float64)
        # Lower vertebrae are larger: the distance between neighbours grows downwards.
        return np.asarray(5.5 * self.vertebra_pitch - self.vertebra_pitch * (count - 1) * (0.94 + 0.012 * (count - 1)))

    def spine_y(self, z: ArrayLike) -> Floats:
        """Y of the middle of the vertebral bodies at height z, mm."""
        height = np.asarray(z, dtype=np.float64)
        return np.asarray(-56.0 - self.kyphosis * (1 - (height / 130) ** 2).clip(-1, 1))

    def cage_half_width(self, z: ArrayLike) -> Floats:
        """Half width of the rib cage (through the middle of the ribs) at height z, mm."""
        down = ((self.level(1) - np.asarray(z, dtype=np.float64)) / 240 + 0.09) / 0.72
        return np.asarray(self.cage_width * (1 - (1 - down.clip(0.02, 1)) ** 2.5) ** 0.6)

    def cage_half_depth(self, z: ArrayLike) -> Floats:
        """Half depth of the rib cage at height z, mm."""
        down = ((self.level(1) - np.asarray(z, dtype=np.float64)) / 240 + 0.16) / 0.75
        return np.asarray(self.cage_depth * (1 - (1 - down.clip(0.03, 1)) ** 2.2) ** 0.7)

    def cage_center_y(self, z: ArrayLike) -> Floats:
        """Y of the middle of the rib cage at height z, mm: its back follows the spine."""
        return np.asarray(self.spine_y(z) - 17.0 + self.cage_half_depth(z))

    def cage_point(self, angle: ArrayLike, side: int, z: ArrayLike) -> Floats:
        """Points on the rib cage.

        Args:
            angle: (N,) from 0 at the spine to pi at the sternum.
            side: -1 is the patient's left, 1 the right.
            z: (N,) height, mm.

        Returns:
            (N, 3) mm.
        """
        theta = np.asarray(angle, dtype=np.float64)
        height = np.broadcast_to(np.asarray(z, dtype=np.float64), theta.shape)
        sine, cosine = np.sin(theta), -np.cos(theta)
        across = np.abs(sine) / self.cage_half_width(height)
        along = np.abs(cosine) / self.cage_half_depth(height)
        reach = (across**SQUARENESS + along**SQUARENESS) ** (-1 / SQUARENESS)
        return np.stack([side * reach * sine, self.cage_center_y(height) + reach * cosine, height], axis=-1)

    def body_half_width(self, z: ArrayLike) -> Floats:
        """Half width of the body, skin to skin, at height z, mm."""
        height = np.asarray(z, dtype=np.float64)
        trunk = self.cage_width + self.muscle + self.fat + 2
        to_shoulder = _step((height - 30) / 55)
        to_neck = _step((height - self.level(1.2)) / 42)
        width = trunk + (self.shoulder_width - trunk) * to_shoulder
        return np.asarray(width + (66 - width) * to_neck)

    def body_half_depth(self, z: ArrayLike) -> Floats:
        """Half depth of the body at height z, mm."""
        height = np.asarray(z, dtype=np.float64)
        trunk = self.cage_depth + self.muscle + self.fat * 1.1 + 8
        to_shoulder = _step((height - 30) / 80)
        to_neck = _step((height - self.level(1.2)) / 42)
        depth = trunk + (82 + 0.5 * self.fat - trunk) * to_shoulder
        depth = depth + (62 - depth) * to_neck
        # No rib and no sternum breaks through the skin.
        needed = (self.front_y(height) + 10 + 0.6 * self.fat - self.back_y) / 2
        return np.asarray(np.maximum(depth, needed))

    def body_front(self, x: float, z: float) -> float:
        """Y of the skin of the front at x and height z, mm."""
        part = min(abs(x) / float(self.body_half_width(z)), 1.0)
        half = float(self.body_half_depth(z)) * float((1 - part**SQUARENESS) ** (1 / SQUARENESS))
        return float(self.body_center_y(z)) + half

    def body_center_y(self, z: ArrayLike) -> Floats:
        """Y of the middle of the body at height z, mm: the back lies flat on the table."""
        return np.asarray(self.back_y + self.body_half_depth(z))

    @property
    def back_y(self) -> float:
        """Y of the skin of the back, mm: behind the spinous processes."""
        return -118.0 - 0.4 * self.fat - 0.4 * self.kyphosis

    def front_y(self, z: ArrayLike) -> Floats:
        """Y of the front of the rib cage at height z, mm."""
        return np.asarray(self.cage_center_y(z) + self.cage_half_depth(z))

    # ------------------------------------------------------------------ bones

    def rib(self, number: int, side: int) -> tuple[Floats, Floats]:
        """Centre lines of a rib and its cartilage, starting at the spine.

        Args:
            number: 1 to 12.
            side: -1 is the patient's left, 1 the right.

        Returns:
            (N, 3) bone and (M, 3) cartilage, float64, RAS mm; M is 0 for ribs 11 and 12.
        """
        drop = self.rib_slope * float(np.interp(number, [1, 2, 7, 10, 12], [34, 44, 84, 76, 44]))
        last = float(np.interp(number, [1, 3, 7, 8, 10, 11, 12], [0.84, 0.86, 0.82, 0.76, 0.62, 0.46, 0.33]))
        top = float(self.level(number - 0.35))
        part = np.linspace(0.11, last, 28)
        bone = self.cage_point(part * np.pi, side, top - drop * part**1.05)
        # The head of the rib meets its vertebra beside the body.
        head = np.array([side * 17.0, float(self.spine_y(top)) - 8.0, top + 2.0])
        bone = np.vstack([head, bone])
        if number > 10:
            return bone, np.zeros((0, 3))
        goal_level = np.interp(number, [1, 2, 7, 10], [2.9, 3.8, 8.3, 8.9])
        goal = np.array([side * (14.0 if number < 8 else 26.0 + 9 * (number - 8)), 0.0, float(self.level(goal_level))])
        goal[1] = float(self.front_y(goal[2])) - (0.0 if number < 8 else 4.0 * (number - 7))
        t = np.linspace(0, 1, 8)[:, None]
        bend = bone[-1] + (bone[-1] - bone[-2]) * 3 + vector(0, 0, -4)
        return bone, (1 - t) ** 2 * bone[-1] + 2 * t * (1 - t) * bend + t**2 * goal

    @property
    def sternum(self) -> Floats:
        """(N, 3) centre line from the jugular notch to the xiphoid process, RAS mm."""
        z = np.linspace(float(self.level(2.4)), float(self.level(8.8)), 12)
        return np.stack([0 * z, self.front_y(z) + 1.0, z], axis=1)

    # ------------------------------------------------------------------ organs

    @property
    def carina(self) -> Floats:
        """(3,) point where the trachea divides, RAS mm."""
        z = float(self.level(self.carina_level))
        return np.array([3.0, float(self.spine_y(z)) + 44.0, z])

    @property
    def heart_center(self) -> Floats:
        """(3,) centre of the heart, RAS mm."""
        z = float(self.level(7.75))
        return vector(-24.0, float(self.cage_center_y(z)) + 17.0, z) + vector(*self.heart_shift)

    @property
    def heart_axes(self) -> Floats:
        """(3, 3) orthonormal columns: from base to apex, towards the left ventricle, and their cross product."""
        first = vector(-0.72, 0.47, -0.51)
        first /= np.linalg.norm(first)
        second = vector(-0.45, -0.85, 0.1)
        second -= first * (first @ second)
        second /= np.linalg.norm(second)
        return np.stack([first, second, np.cross(first, second)], axis=1)

    @property
    def heart_radii(self) -> Floats:
        """(3,) half axes of the heart along the columns of `heart_axes`, mm."""
        return np.array([64.0, 44.0, 47.0]) * self.heart_scale

    def in_heart(self, along: float, left: float, up: float) -> Floats:
        """The point (3,), RAS mm, given in fractions of the half axes of the heart along `heart_axes`."""
        return np.asarray(self.heart_center + self.heart_axes @ (self.heart_radii * [along, left, up]))

    def dome_top(self, side: int) -> float:
        """Height z of the top of the diaphragm on one side, mm; side -1 is the patient's left."""
        return float(self.level(self.dome_right)) - (self.dome_drop if side < 0 else 0.0)

    @property
    def recess_z(self) -> float:
        """Height z of the lowest point of the lungs, in the recess beside the spine, mm."""
        return self.dome_top(1) - 66.0

    def hilum(self, side: int) -> Floats:
        """(3,) point where bronchi and vessels enter a lung, RAS mm; side -1 is the patient's left."""
        x = 40.0 if side > 0 else -44.0
        return self.carina + vector(x - 3.0, 2.0, -20.0 if side > 0 else -24.0)

    @property
    def aorta(self) -> Floats:
        """(N, 3) centre line of the aorta from its root over the arch down along the spine, RAS mm."""
        root = self.in_heart(-0.45, 0.02, 0.05)
        carina = self.carina
        top = float(self.level(self.arch_level))
        down = np.arange(top - 34, float(self.level(16)), -12.0)
        leftness = -23 + 10 * _step((float(self.level(8)) - down) / 110)
        descending = np.stack([leftness, self.spine_y(down) + 20, down], axis=1)
        knots = [
            root,
            [root[0] + 13, carina[1] + 32, root[2] + 28],
            [16.0, carina[1] + 32, top - 22],
            [9.0, carina[1] + 24, top - 6],
            [-5.0, carina[1] + 9, top - 2],
            [-17.0, carina[1] - 7, top - 6],
            [-23.0, carina[1] - 20, top - 18],
        ]
        return smooth_path(np.vstack([np.asarray(knots), descending]))


def vector(x: float, y: float, z: float) -> Floats:
    """A (3,) float64 array."""
    return np.array([x, y, z], dtype=np.float64)


def smooth_path(knots: ArrayLike, *, pieces: int = 5) -> Floats:
    """A smooth path through the knots (Catmull-Rom splines): (N, 3) from (K, 3), mm."""
    points = np.asarray(knots, dtype=np.float64)
    padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    t = np.arange(pieces)[:, None] / pieces
    parts = []
    for k in range(1, len(padded) - 2):
        a, b, c, d = padded[k - 1 : k + 3]
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3))
    return np.vstack([*parts, points[-1:]])


def _step(position: ArrayLike) -> Floats:
    """Cubic step from 0 to 1."""
    t = np.clip(position, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))
