"""Which of the models that come with the package describes a scan: one for CT, another for everything else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from meddift import Matcher, Volume
from meddift.errors import OptionsError
from meddift.geometry import Grid


def scan(modality: str = "") -> Volume:
    """Fat, tissue and air in Hounsfield units; or, for anything but CT, brightness from 0 to 1000."""
    values = np.random.default_rng(0).choice([-1000.0, -90.0, 40.0, 60.0], (24, 20, 16), p=[0.3, 0.3, 0.2, 0.2])
    volume = Volume(values.astype(np.float32), Grid((24, 20, 16), np.diag([2.0, 2.0, 2.0, 1.0])))
    data = volume.data if modality in ("", "CT") else volume.data + 1100
    return replace(volume, data=data, modality=modality)


@pytest.mark.parametrize(
    ("fixed", "moving", "name"),
    [
        ("CT", "CT", "builtin"),
        ("", "CT", "builtin"),  # values that can be Hounsfield units
        ("MR", "MR", "builtin-3"),
        ("PT", "MR", "builtin-3"),
        # A descriptor of one network says nothing to another: both scans are described by the one that knows both.
        ("CT", "MR", "builtin-3"),
        ("MR", "CT", "builtin-3"),
    ],
)
def test_scans_of_a_pair_are_described_by_one_model(fixed, moving, name):
    matcher = Matcher(store=False)
    pair = matcher.pair(scan(fixed), scan(moving))
    assert pair.settings.spec.name == pair.fixed.settings.spec.name == pair.moving.settings.spec.name == name
    assert pair.fixed.volume.modality == fixed
    # Scans that were read before: the same.
    again = matcher.pair(matcher.scan(scan(fixed)), matcher.scan(scan(moving)))
    assert again.moving.settings.spec.name == name
    assert matcher.plan(scan(fixed), scan(moving), 3)["model"] == name


def test_a_scan_of_one_model_serves_pairs_of_both():
    matcher = Matcher(store=False)
    ct, mr = matcher.scan(scan("CT")), matcher.scan(scan("MR"))
    assert matcher.pair(ct, mr).fixed is not ct  # described anew
    assert matcher.pair(ct, mr).moving is mr
    assert matcher.pair(ct, ct).fixed is ct


@pytest.mark.parametrize("options", [{"model": "builtin-2"}, {"model": "builtin-3"}, {"levels": ["mind"]}])
def test_a_model_that_is_named_describes_all(options):
    matcher = Matcher(store=False, **options)
    names = {matcher.pair(scan(a), scan(b)).settings.spec.name for a in ("CT", "MR") for b in ("CT", "MR")}
    assert names == {matcher.spec.name}


def test_modality_that_the_user_names_decides():
    assert Matcher(store=False, modality="mr").scan(scan("CT")).settings.spec.name == "builtin-3"
    assert Matcher(store=False, modality="ct").scan(scan("MR")).settings.spec.name == "builtin-3"  # no such values
    assert Matcher(store=False, modality="ct").scan(scan("")).settings.spec.name == "builtin"


def test_weights_of_the_user_are_used_for_all(tmp_path):
    matcher = Matcher(store=False, weights=tmp_path)
    assert matcher.scan(scan("MR")).settings.spec.name == "builtin"


def test_weights_of_both_are_named():
    hashes = Matcher(store=False).weights_hashes
    assert list(hashes) == ["builtin", "builtin-3"]
    assert hashes["builtin"] == Matcher("builtin-2", store=False).weights_hashes["builtin-2"]
    assert hashes["builtin-3"] != hashes["builtin"]


def test_a_scan_of_other_options_is_refused():
    other = Matcher(store=False, timestep=99).scan(scan("MR"))
    with pytest.raises(OptionsError, match="another model"):
        Matcher(store=False).pair(other, scan("MR"))
