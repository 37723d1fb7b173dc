"""Drawn bodies: the same places in every contrast, brightness that says nothing about them, and no third shades."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from drawn_shapes import CONTRASTS, EDGE, draw_labels, draw_shapes
from training_scans import AIR_HU, TOP_HU
from views import make_pair


@pytest.fixture(scope="module")
def drawn():
    return draw_shapes(2, spacing_mm=2.0, weight=0.5, first_seed=3)


def values(scan) -> list[np.ndarray]:
    return [((v - AIR_HU) / (TOP_HU - AIR_HU)).numpy() for v in (scan.hu, *scan.others)]


def test_every_contrast_shows_the_same_borders(drawn):
    labels = draw_labels(torch.Generator().manual_seed(7_000_003), spacing_mm=2.0).numpy()
    # Away from borders, found here by morphology, each tissue has one brightness in each contrast.
    inside = ndimage.maximum_filter(labels, 3) == ndimage.minimum_filter(labels, 3)
    for image in values(drawn[0]):
        for label in np.unique(labels):
            assert np.ptp(image[inside & (labels == label)]) < 1e-4
    assert len(drawn[0].others) == CONTRASTS - 1
    assert labels.shape == (EDGE,) * 3
    assert len(np.unique(labels[labels > 1])) >= 8


def test_brightness_in_one_contrast_tells_nothing_about_another(drawn):
    correlations = []
    for scan in drawn:
        body = values(scan)[0] > 0
        flat = [v[::5, ::5, ::5][body[::5, ::5, ::5]] for v in values(scan)]
        pairs = np.corrcoef(flat)[np.triu_indices(len(flat), 1)]
        correlations += pairs.tolist()
    assert abs(np.mean(correlations)) < 0.3
    assert np.min(correlations) < -0.1


def test_borders_show_what_lies_on_both_sides_and_nothing_else(drawn):
    labels = draw_labels(torch.Generator().manual_seed(7_000_004), spacing_mm=2.0).numpy()
    inside = ndimage.maximum_filter(labels, 3) == ndimage.minimum_filter(labels, 3)
    for image in values(drawn[1])[:2]:
        brightness = np.zeros(labels.max() + 1)
        for label in np.unique(labels[inside]):
            brightness[label] = image[inside & (labels == label)].mean()
        flat = brightness[labels]
        known = np.isin(labels, np.unique(labels[inside]))
        known = ndimage.minimum_filter(known, 3)
        low, high = ndimage.minimum_filter(flat, 3), ndimage.maximum_filter(flat, 3)
        assert (image[known] >= low[known] - 1e-4).all()
        assert (image[known] <= high[known] + 1e-4).all()


def test_bodies_differ_and_repeat_with_their_seed(drawn):
    again = draw_shapes(1, spacing_mm=2.0, first_seed=4)[0]
    assert torch.equal(again.hu, drawn[1].hu)
    assert not torch.equal(drawn[0].hu, drawn[1].hu)
    assert all(scan.weight == 0.5 and scan.modality == "MR" for scan in drawn)
    air = [float((v == 0).mean()) for scan in drawn for v in values(scan)[:1]]
    assert all(0.05 < share < 0.8 for share in air)


def test_views_of_drawn_bodies_can_be_trained_on(drawn):
    pair = make_pair(drawn, torch.Generator().manual_seed(0), shape=(48, 48, 48), count=100)
    assert len(pair.points[0]) >= 64
    assert all(float(view.image.std()) > 0.03 for view in pair.views)
