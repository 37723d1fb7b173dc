from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from meddift.body import lung_mask
from meddift.errors import OptionsError
from meddift.geometry import Grid
from meddift_lab.synthetic import chest_phantom
from meddift_lab.synthetic.drawing import Canvas, smooth_noise
from meddift_lab.synthetic.trees import grow_tree


@pytest.fixture(scope="module")
def phantoms():
    return [chest_phantom(seed, spacing_mm=5.0) for seed in (0, 1, 2)]


@pytest.fixture(scope="module")
def clean():
    return chest_phantom(0, spacing_mm=3.0, noise_std_hu=0.0)


def middle(volume) -> np.ndarray:
    return volume.grid.index_to_world(np.argwhere(volume.data)).mean(axis=0)


def test_organs_lie_where_they_lie_in_people(phantoms):
    for phantom in phantoms:
        at = {name: middle(mask) for name, mask in phantom.structures.items()}
        spine = phantom.landmarks.positions[phantom.landmarks.labels.index("T6")]
        assert phantom.volume.grid.orientation == "RAS"
        # RAS: the patient's left is negative x, the front positive y, the head positive z.
        assert at["heart"][0] < spine[0] - 10
        assert at["liver"][0] > spine[0] + 20
        assert at["left lung"][0] < spine[0] < at["right lung"][0]
        assert at["heart"][1] > spine[1] + 40
        assert at["liver"][2] < at["heart"][2] < phantom.landmarks.positions[0][2]
        ratio = phantom.structures["right lung"].data.sum() / phantom.structures["left lung"].data.sum()
        assert 1.02 < ratio < 1.6
        volume_litres = (
            sum(phantom.structures[n].data.sum() for n in ("left lung", "right lung"))
            * np.prod(phantom.volume.grid.spacing)
            / 1e6
        )
        assert 2.5 < volume_litres < 8


def test_hounsfield_units_are_those_of_tissues(clean):
    hounsfield = clean.volume.data
    lung = ndimage.binary_erosion(clean.structures["right lung"].data, iterations=2)
    liver = ndimage.binary_erosion(clean.structures["liver"].data, iterations=2)
    assert -920 < np.median(hounsfield[lung]) < -780
    assert 30 < np.median(hounsfield[liver]) < 90
    assert np.percentile(hounsfield[clean.structures["bone"].data], 75) > 200
    outside = ~ndimage.binary_dilation(clean.structures["body"].data, iterations=1)
    assert np.median(hounsfield[outside]) == -1000
    carina = clean.landmarks.positions[clean.landmarks.labels.index("carina")]
    assert clean.volume.at(carina[None] + [[0.0, 0.0, 6.0]])[0] < -700


def test_the_lung_mask_finds_the_lungs_that_were_drawn(clean):
    found = lung_mask(clean.volume).data
    drawn = clean.structures["left lung"].data | clean.structures["right lung"].data
    assert 2 * (found & drawn).sum() / (found.sum() + drawn.sum()) > 0.9
    world = clean.volume.grid.index_to_world(np.argwhere(drawn))
    assert (world.min(0) > np.array(clean.lung_low) - 8).all()
    assert (world.max(0) < np.array(clean.lung_high) + 8).all()


def test_lesions_are_dense_and_in_the_lungs(clean):
    assert clean.lesions.labels == ("lesion-1", "lesion-2", "lesion-3")
    assert clean.volume.at(clean.lesions.positions).min() > -200
    lungs = ndimage.binary_closing(
        clean.structures["left lung"].data | clean.structures["right lung"].data, iterations=5
    )
    index = np.rint(clean.volume.grid.world_to_index(clean.lesions.positions)).astype(int)
    assert lungs[tuple(index.T)].all()


def test_branches_are_landmarks_inside_the_lungs(clean):
    assert len(clean.branches) > 300
    assert len(set(clean.branches.labels)) == len(clean.branches)
    assert clean.volume.grid.contains(clean.branches.positions).all()
    right = np.array([label.startswith("right") for label in clean.branches.labels])
    x = clean.branches.positions[:, 0]
    assert np.median(x[right]) > 30
    assert np.median(x[~right]) < -30
    # Forks of arteries and veins are brighter than the lung around them.
    vessel = np.array(["airway" not in label for label in clean.branches.labels])
    generator = np.random.default_rng(0)
    elsewhere = clean.branches.positions[vessel] + generator.choice([-9.0, 9.0], (int(vessel.sum()), 3))
    assert np.median(clean.volume.at(clean.branches.positions[vessel])) > np.median(clean.volume.at(elsewhere)) + 60


def test_named_landmarks_are_comparable_between_seeds(phantoms):
    names = phantoms[0].landmarks.labels
    assert {"carina", "T4", "rib5-left-tip", "rib5-right-tip", "aortic arch", "liver dome", "xiphoid"} <= set(names)
    for phantom in phantoms:
        assert phantom.landmarks.labels == names
        place = dict(zip(names, phantom.landmarks.positions, strict=True))
        assert place["T1"][2] > place["T4"][2] > place["T12"][2]
        assert place["rib5-left-tip"][0] < -20
        assert place["rib5-right-tip"][0] > 20
        assert place["liver dome"][2] > place["left dome"][2]
        assert place["aortic arch"][2] > place["carina"][2]
        assert place["manubrium"][1] > place["carina"][1] > place["T4"][1]
    shift = np.linalg.norm(phantoms[0].landmarks.positions - phantoms[1].landmarks.positions, axis=1)
    assert shift.min() > 0.1
    assert shift.max() < 60
    # T5 is bone, in all of them.
    for phantom in phantoms:
        assert phantom.volume.at(place_of(phantom, "T5"))[0] > 60


def place_of(phantom, name):
    return phantom.landmarks.positions[[phantom.landmarks.labels.index(name)]]


def test_the_liver_dome_is_where_lung_turns_into_liver(clean):
    top = place_of(clean, "liver dome")[0]
    above, below = clean.volume.at(top + np.array([[0, 0, 16], [0, 0, -18]]))
    assert above < -600
    assert below > 0


def test_equal_seeds_equal_voxels_other_seeds_others():
    first, again, other = (chest_phantom(seed, spacing_mm=8.0) for seed in (11, 11, 12))
    assert first.volume.digest() == again.volume.digest()
    assert np.array_equal(first.branches.positions, again.branches.positions)
    assert first.volume.digest() != other.volume.digest()


def test_options_leave_the_rest_as_it_was():
    plain = chest_phantom(3, spacing_mm=8.0, noise_std_hu=0, table=False, lesions=0)
    noisy = chest_phantom(3, spacing_mm=8.0, noise_std_hu=15.0, table=False, lesions=0)
    assert abs((noisy.volume.data - plain.volume.data.astype(float))[plain.volume.data > 0].std() / 15 - 1) < 0.05
    with_table = chest_phantom(3, spacing_mm=8.0, noise_std_hu=0, lesions=0)
    changed = np.argwhere(with_table.volume.data != plain.volume.data)
    assert len(changed) > 100
    assert (plain.volume.grid.index_to_world(changed)[:, 1] < plain.table_y + 70).all()
    inner = ndimage.binary_erosion(with_table.structures["body"].data)
    assert not inner[tuple(changed.T)].any()
    assert len(plain.lesions) == 0
    small = chest_phantom(3, spacing_mm=8.0, size_mm=(120, 120, 120), noise_std_hu=0)
    assert small.volume.grid.shape == (15, 15, 15)


def test_a_field_of_view_without_lung_has_no_lesions():
    assert len(chest_phantom(0, spacing_mm=6.0, size_mm=(30, 30, 30)).branches) < 40
    with pytest.raises(OptionsError):
        chest_phantom(0, spacing_mm=0.0)
    with pytest.raises(OptionsError):
        chest_phantom(0, lesions=-1)


@pytest.mark.parametrize("radius", [0.4, 0.8, 1.5, 3.0, 6.0])
def test_a_drawn_rod_holds_the_volume_of_a_rod(radius):
    canvas = Canvas(Grid((30, 30, 60), np.diag([2.0, 2.0, 2.0, 1.0])))
    layer = canvas.empty()
    start, end = np.array([28.3, 31.1, 20.0]), np.array([33.7, 27.9, 100.0])
    canvas.capsule(layer, start, end, radius_start=radius)
    across = layer[:, :, 15:45].sum() * 8 / (30 * 2.0)
    tilt = np.linalg.norm(end - start) / (end - start)[2]
    assert across == pytest.approx(np.pi * radius**2 * tilt, rel=0.12)
    # Its axis is where it was put, to a small part of a voxel.
    plane = layer[:, :, 30]
    index = np.argwhere(plane > -1)
    found = (index * plane.reshape(-1, 1)).sum(0) / plane.sum() * 2
    expected = start + (end - start) * (60 - 20) / 80
    assert np.abs(found - expected[:2]).max() < 0.25


def test_a_tree_reaches_every_goal_and_obeys_murray():
    goals = np.random.default_rng(0).uniform(10, 60, (64, 3))
    tree = grow_tree(np.zeros(3), np.ones(3), goals, generator=np.random.default_rng(1), terminal_radius_mm=0.7)
    assert len(tree.paths) == 2 * 64 - 1
    assert len(tree.forks) == 63
    ends = np.stack([path[-1] for path in tree.paths])
    assert np.linalg.norm(goals[:, None] - ends[None], axis=-1).min(axis=1).max() < 1e-9
    starts = np.stack([path[0] for path in tree.paths])
    for fork, radius in zip(tree.forks, tree.fork_radii, strict=True):
        daughters = tree.radii[np.linalg.norm(starts - fork, axis=1) < 1e-9]
        assert len(daughters) == 2
        assert (daughters**3).sum() == pytest.approx(radius**3)
    assert tree.generations.max() >= 5


@pytest.mark.parametrize("scale", [4.0, 12.0, 50.0])
def test_texture_is_centred_and_as_wide_as_asked_for(scale):
    grid = Grid((60, 60, 60), np.diag([2.0, 2.0, 2.0, 1.0]))
    texture = smooth_noise(grid, np.random.default_rng(0), scale_mm=scale)
    # 120 mm hold few blobs of 50 mm.
    assert texture.std() == pytest.approx(1.0, abs=0.02 if scale < 20 else 0.35)
    step = int(scale / 2)
    near, far = (np.corrcoef(texture[k:].ravel(), texture[:-k].ravel())[0, 1] for k in (max(1, step // 4), step * 2))
    assert near > 0.5 > far
