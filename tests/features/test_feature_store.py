"""Stored pyramids come back as they were, or not at all."""

import dataclasses
import logging
import mmap
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from fake_model import FakeModel, make_scan

from meddift.errors import ImageError, OptionsError, OutputError
from meddift.features import ExtractionOptions, FeatureStore, Level, Pyramid, extract_pyramid
from meddift.features.describe_stored import describe_stored
from meddift.features.extraction import pyramid_key
from meddift.geometry import Grid
from meddift.volume import Volume

SCAN = make_scan()
OPTIONS = ExtractionOptions(levels=("up0", "up1", "mind"))


def small(number: int, size: int = 10) -> Pyramid:
    features = np.random.default_rng(number).standard_normal((size, size, size, 3)).astype(np.float32)
    grid = Grid((size, size, size), np.array([[1.1, 0.1, 0, 1 / 3], [-0.1, 1.1, 0, 7], [0, 0, 2, -5], [0, 0, 0, 1]]))
    return Pyramid((Level("up0", features, grid, 0.3),), grid, grid, f"{number:064x}", {"model": "none", "n": number})


def stored_or_made(store: FeatureStore, scan, model: FakeModel) -> Pyramid:
    """The features of a scan: from the store if they are there, else from the model and then kept."""
    key = pyramid_key(
        scan.digest(), OPTIONS, model.spec, weights=model.weights_hash, precision=model.precision, device=model.device
    )
    return store.get_or_make(key, lambda: extract_pyramid(scan, model, OPTIONS, digest=key))


def stored_file(store: FeatureStore, key: str):
    (path,) = (store.folder / key).iterdir()
    return path


def equal(one: Pyramid, two: Pyramid) -> bool:
    return (
        (one.digest, one.names, one.image_grid, one.network_grid, dict(one.provenance))
        == (two.digest, two.names, two.image_grid, two.network_grid, dict(two.provenance))
        and all(a.grid == b.grid and a.weight == b.weight for a, b in zip(one.levels, two.levels, strict=True))
        and all(np.array_equal(a.features, b.features) for a, b in zip(one.levels, two.levels, strict=True))
    )


def test_rounded_features_take_half_the_space_and_come_back_bit_by_bit(tmp_path):
    store = FeatureStore(tmp_path)
    options = ExtractionOptions(levels=("up0", "up1", "mind"), numbers="float16")
    made = extract_pyramid(SCAN, FakeModel(), options)
    for whole, rounded in zip(extract_pyramid(SCAN, FakeModel(), OPTIONS).levels, made.levels, strict=True):
        assert rounded.array.dtype == np.float16
        np.testing.assert_array_equal(rounded.array, whole.features.astype(np.float16))
    assert store.put(made)
    again = store.get(made.digest)
    assert again is not None
    assert equal(made, again)
    moments = sum(8 * level.channels * (level.channels + 1) for level in made.levels)
    assert made.nbytes < stored_file(store, made.digest).stat().st_size < made.nbytes + moments + 10_000


@pytest.mark.parametrize("numbers", ["float16", "float32"])
def test_stored_features_are_read_where_the_file_is_mapped(tmp_path, numbers):
    """No array has memory of its own: all lie in one map of the file, in the type in which they were made."""
    store = FeatureStore(tmp_path)
    made = extract_pyramid(SCAN, FakeModel(), ExtractionOptions(levels=("up0", "up1", "mind"), numbers=numbers))
    store.put(made)
    again = store.get(made.digest)
    assert equal(made, again)
    for level in again.levels:
        assert level.values.dtype == np.dtype(numbers)
        base = level.values
        while isinstance(base, np.ndarray):
            base = base.base
        assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
        assert np.shares_memory(level.tensor.numpy(), level.values)


def test_what_float16_does_not_reach_stays_float32():
    class Loud(FakeModel):
        def level(self, latent, name, noise_seed):
            quiet = super().level(latent, name, noise_seed)
            return Volume(quiet.data * np.float32(1e5 if name == "up1" else 1), quiet.grid)

    whole, rounded = (
        extract_pyramid(SCAN, Loud(), ExtractionOptions(levels=("up0", "up1"), numbers=numbers))
        for numbers in ("float32", "float16")
    )
    np.testing.assert_array_equal(rounded.level("up1").array, whole.level("up1").array)
    assert not np.array_equal(rounded.level("up0").features, whole.level("up0").features)


_MAKE = """
import sys
import numpy as np
from meddift.features import ExtractionOptions, extract_pyramid
from meddift.geometry import Grid
from meddift.system.memory import resident_peak_bytes
from meddift.volume import Volume

def made(edge):
    grid = Grid((edge,) * 3, np.diag([2.0, 2.0, 2.0, 1.0]))
    scan = Volume(np.random.default_rng(0).integers(-1000, 1000, grid.shape, np.int16), grid)
    return extract_pyramid(scan, None, ExtractionOptions(levels=("mind",), numbers=sys.argv[1]))

made(16)  # what is loaded the first time
before = resident_peak_bytes()
pyramid = made(96)
print(pyramid.nbytes, resident_peak_bytes() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak may hold the peak of the process before")
def test_rounded_features_take_half_the_memory_while_they_are_made():
    # Each in a process of its own: memory that an earlier computation has freed would be used again unseen.
    said = {
        numbers: subprocess.run(
            [sys.executable, "-c", _MAKE, numbers], check=True, capture_output=True, text=True, timeout=300
        ).stdout.split()
        for numbers in ("float16", "float32")
    }
    numbers = 24 * 96**3
    assert [int(said[kind][0]) for kind in ("float16", "float32")] == [2 * numbers, 4 * numbers]
    assert int(said["float16"][1]) < int(said["float32"][1]) - 2 * numbers * 3 / 4


def test_a_pyramid_comes_back_bit_by_bit(tmp_path):
    store = FeatureStore(tmp_path / "deep" / "folder")
    made = stored_or_made(store, SCAN, FakeModel())
    again = FeatureStore(tmp_path / "deep" / "folder").get(made.digest)
    assert again is not None
    assert equal(made, again)
    torch.from_numpy(
        again.levels[0].features
    )  # warns about arrays that must not be written to, which is an error here


@pytest.mark.parametrize("whiten", [False, True])
def test_moments_of_levels_that_are_whitened_are_taken_once_and_kept(tmp_path, monkeypatch, whiten):
    store, model = FeatureStore(tmp_path), FakeModel()
    model.spec = dataclasses.replace(model.spec, defaults=dataclasses.replace(model.spec.defaults, whiten=whiten))
    made = stored_or_made(store, SCAN, model)
    again = FeatureStore(tmp_path).get(made.digest)
    assert again is not None
    assert set(again.moments) == (set(made.names) if whiten else {"mind"})
    monkeypatch.setattr("meddift.features.pyramid.moments_of", None)
    for level in made.select(again.moments).levels:
        kept = again.moments_of(level.name)
        rows = level.matrix[made.inside(level.name).reshape(-1)].astype(np.float64)
        rows = rows if len(rows) else level.matrix.astype(np.float64)
        assert kept.count == len(rows)
        np.testing.assert_allclose(kept.mean, rows.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(
            kept.covariance, np.cov(rows.T, bias=True).reshape(kept.covariance.shape), atol=1e-6
        )


def test_notes_live_as_long_as_their_pyramid(tmp_path, caplog):
    store = FeatureStore(tmp_path)
    made = small(1)
    assert not store.put_note(made.digest, "prior-1", {"a": 1})  # nothing to lie beside
    store.put(made)
    assert store.note(made.digest, "prior-1") is None
    assert store.put_note(made.digest, "prior-1", {"a": 1 / 3})
    assert FeatureStore(tmp_path).note(made.digest, "prior-1") == {"a": 1 / 3}
    (tmp_path / made.digest / "prior-1.json").write_text('{"a": 0.33')
    assert store.note(made.digest, "prior-1") is None
    with pytest.raises(OptionsError, match="letters"):
        store.note(made.digest, "../prior")
    assert store.clear() == 1
    assert not (tmp_path / made.digest).exists()


def test_writing_into_features_does_not_change_the_file(tmp_path):
    store = FeatureStore(tmp_path)
    made = stored_or_made(store, SCAN, FakeModel())
    again = store.get(made.digest)
    assert again is not None
    again.levels[0].features[:] = 7.0
    third = store.get(made.digest)
    assert third is not None
    assert equal(made, third)


def test_the_second_question_does_not_ask_the_model(tmp_path):
    store, model = FeatureStore(tmp_path), FakeModel()
    first = stored_or_made(store, SCAN, model)
    count = len(model.asked)
    second = stored_or_made(store, SCAN, model)
    assert len(model.asked) == count
    assert equal(first, second)
    stored_or_made(store, make_scan(1), model)
    assert len(model.asked) > count


def test_what_was_never_stored_is_missing(tmp_path, caplog):
    assert FeatureStore(tmp_path / "nowhere").get("0" * 64) is None
    assert not caplog.records
    with pytest.raises(OptionsError, match="64 hexadecimal"):
        FeatureStore(tmp_path).get("../../etc/passwd")
    with pytest.raises(OptionsError, match="budget"):
        FeatureStore(tmp_path, budget_bytes=-1)


@pytest.mark.parametrize("share", [0.0, 0.0005, 0.01, 0.5, 0.9999])
def test_a_truncated_file_is_said_and_made_again(tmp_path, caplog, share):
    store = FeatureStore(tmp_path)
    made = stored_or_made(store, SCAN, FakeModel())
    path = stored_file(store, made.digest)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with caplog.at_level(logging.WARNING):
        assert store.get(made.digest) is None
    assert str(path) in caplog.text
    model = FakeModel()
    assert equal(stored_or_made(store, SCAN, model), made)
    assert model.asked
    assert path.read_bytes() == whole


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_single_changed_bit_is_noticed(tmp_path, share):
    store = FeatureStore(tmp_path)
    store.put(small(1))
    path = stored_file(store, small(1).digest)
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    assert store.get(small(1).digest) is None


def test_a_changed_number_in_the_header_is_noticed(tmp_path):
    store = FeatureStore(tmp_path)
    store.put(small(1))
    path = stored_file(store, small(1).digest)
    content = path.read_bytes()
    assert content.count(b"0.333") > 0  # the origin of the grids: still valid JSON, but elsewhere in the world
    path.write_bytes(content.replace(b"0.333", b"9.333"))
    assert store.get(small(1).digest) is None


def test_a_file_of_another_scan_is_not_taken_for_this_one(tmp_path):
    store = FeatureStore(tmp_path)
    store.put(small(1))
    shutil.copytree(tmp_path / small(1).digest, tmp_path / small(2).digest)
    assert store.get(small(2).digest) is None
    assert equal(store.get(small(1).digest), small(1))


def test_an_interrupted_write_leaves_nothing_behind(tmp_path, monkeypatch):
    def half(tensors, path, metadata=None):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    store = FeatureStore(tmp_path)
    monkeypatch.setattr("safetensors.numpy.save_file", half)
    with pytest.raises(KeyboardInterrupt):
        store.put(small(1))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert store.get(small(1).digest) is None


def used(store: FeatureStore, number: int, seconds_ago: float) -> None:
    moment = time.time() - seconds_ago
    os.utime(stored_file(store, small(number).digest), (moment, moment))


def test_beyond_the_budget_the_one_used_longest_ago_goes_first(tmp_path):
    roomy = FeatureStore(tmp_path)
    for number in (1, 2, 3):
        roomy.put(small(number))
        used(roomy, number, 1000 - 100 * number)
    one = roomy.size() // 3
    assert one > 10**3 * 3 * 4
    assert roomy.get(small(1).digest) is not None  # used just now
    tight = FeatureStore(tmp_path, budget_bytes=3 * one + one // 2)
    tight.put(small(4))
    assert {path.name for path in tmp_path.iterdir()} == {small(n).digest for n in (1, 3, 4)}
    assert tight.size() <= tight.budget_bytes


def test_what_was_just_written_stays_even_without_any_budget(tmp_path):
    store = FeatureStore(tmp_path, budget_bytes=0)
    for number in (1, 2):
        assert store.put(small(number))
        assert equal(store.get(small(number).digest), small(number))
    assert store.get(small(1).digest) is None


def test_files_of_a_killed_run_are_swept_once_they_are_old(tmp_path):
    store = FeatureStore(tmp_path)
    store.put(small(1))
    folder = tmp_path / small(1).digest
    old, fresh = folder / ".tmp-0123-pyramid.safetensors", folder / ".tmp-4567-pyramid.safetensors"
    for path in (old, fresh):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 3 * 24 * 3600,) * 2)
    store.put(small(2))
    assert not old.exists()
    assert fresh.exists()


def test_clear_removes_pyramids_and_nothing_else(tmp_path):
    store = FeatureStore(tmp_path)
    for number in (1, 2):
        store.put(small(number))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "pyramid.safetensors").write_text("mine too")
    assert store.clear() == 2
    assert store.size() == 0
    assert {path.name for path in tmp_path.iterdir()} == {"notes.txt", "other"}
    assert FeatureStore(tmp_path / "nowhere").clear() == 0


def test_a_folder_that_cannot_be_written_is_said_once_and_done_without(tmp_path, caplog):
    (tmp_path / "file").write_text("not a folder")
    store = FeatureStore(tmp_path / "file" / "store")
    with caplog.at_level(logging.WARNING):
        made = [stored_or_made(store, make_scan(seed), FakeModel()) for seed in (0, 1)]
    assert len(made) == 2
    assert len(caplog.records) == 1
    assert str(store.folder) in caplog.text


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_still_answers_from_what_it_holds(tmp_path, caplog):
    FeatureStore(tmp_path).put(small(1))
    (tmp_path / small(1).digest).chmod(0o555)
    tmp_path.chmod(0o555)
    try:
        store = FeatureStore(tmp_path)
        assert not store.put(small(2))
        assert equal(store.get(small(1).digest), small(1))
    finally:
        tmp_path.chmod(0o755)
        (tmp_path / small(1).digest).chmod(0o755)


def test_the_default_folder_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDDIFT_CACHE", str(tmp_path / "cache"))
    assert FeatureStore().folder == tmp_path / "cache" / "pyramids"
    monkeypatch.delenv("MEDDIFT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    folder = FeatureStore().folder
    assert folder.name == "pyramids"
    assert "meddift" in str(folder)
    assert not folder.exists()


def test_several_writers_and_readers_never_see_half_a_file(tmp_path, caplog):
    wrong = []

    def work() -> None:
        store = FeatureStore(tmp_path)
        for _ in range(8):
            store.put(small(1, 24))
            found = store.get(small(1).digest)
            if found is None or not equal(found, small(1, 24)):
                wrong.append(found)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not caplog.records


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_stored_files_are_as_readable_as_any_other(tmp_path):
    store = FeatureStore(tmp_path)
    store.put(small(1))
    (tmp_path / "ordinary").touch()
    assert stored_file(store, small(1).digest).stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize("what", ["pages", "words", "halves"])
def test_parts_that_have_changed_places_are_noticed(tmp_path, what):
    store, pyramid = FeatureStore(tmp_path), small(1, 24)
    store.put(pyramid)
    path = stored_file(store, pyramid.digest)
    content = bytearray(path.read_bytes())
    size, apart = {"pages": (4096, 8192), "words": (8, 64), "halves": (4, 4)}[what]
    start = len(content) - 3 * 8192
    first, second = slice(start, start + size), slice(start + apart, start + apart + size)
    assert content[first] != content[second]
    content[first], content[second] = content[second], content[first]
    path.write_bytes(content)
    assert store.get(pyramid.digest) is None


def test_a_library_that_finds_the_disk_full_costs_the_copy_only(tmp_path, monkeypatch, caplog):
    import safetensors.numpy

    def full(*_arguments, **_options):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    store = FeatureStore(tmp_path)
    assert stored_or_made(store, SCAN, FakeModel()).levels
    assert "No space left" in caplog.text


def test_a_folder_that_is_deleted_meanwhile_is_made_again(tmp_path):
    store = FeatureStore(tmp_path / "store")
    store.put(small(1))
    shutil.rmtree(tmp_path / "store")
    assert store.get(small(1).digest) is None
    assert not store.put_note(small(1).digest, "prior", {})
    assert store.put(small(2))
    assert equal(store.get(small(2).digest), small(2))


def test_a_user_without_home_directory_goes_on_with_a_word(monkeypatch, caplog):
    from meddift.features import store as module

    def none():
        raise OutputError("this user has no home directory")

    monkeypatch.setattr(module, "cache_folder", none)
    store = FeatureStore()
    assert stored_or_made(store, SCAN, FakeModel()).levels
    assert store.get(small(1).digest) is None
    assert (store.size(), store.clear()) == (0, 0)
    assert [record.message for record in caplog.records] == [
        "features are not kept, going on without: this user has no home directory"
    ]


def test_windows_keeps_what_a_process_has_mapped(tmp_path, monkeypatch, caplog):
    """There, a file cannot be replaced while anybody has it mapped; its content is the same by its key."""
    store = FeatureStore(tmp_path)
    store.put(small(1))

    def mapped(*_arguments):
        raise PermissionError(13, "Access is denied")

    from meddift.features import store as module

    monkeypatch.setattr(module, "_replaces_mapped_files", lambda: False)
    monkeypatch.setattr(os, "replace", mapped)
    assert store.put(small(1))
    assert not caplog.records
    assert not FeatureStore(tmp_path).put(small(2))


def test_a_stored_file_is_described_by_its_header(tmp_path):
    store = FeatureStore(tmp_path)
    store.put(small(5))
    path = stored_file(store, f"{5:064x}")
    told = describe_stored(path)
    assert told["levels"] == [{"name": "up0", "shape": [10, 10, 10, 3]}]
    assert told["digest"] == f"{5:064x}"
    assert told["provenance"] == {"model": "none", "n": 5}
    content = path.read_bytes()
    for cut in (0, 5, 200, len(content) - 1):
        (tmp_path / "cut.safetensors").write_bytes(content[:cut])
        with pytest.raises(ImageError, match=r"cut\.safetensors"):
            describe_stored(tmp_path / "cut.safetensors")


def test_a_folder_of_the_store_is_described_with_its_damaged_files(tmp_path):
    store = FeatureStore(tmp_path)
    for number in (5, 6):
        store.put(small(number))
    damaged = stored_file(store, f"{6:064x}")
    damaged.write_bytes(damaged.read_bytes()[:100])
    told = describe_stored(tmp_path)
    assert told["format"] == "store of features"
    assert [("levels" in one, "problem" in one) for one in told["stored"]] == [(True, False), (False, True)]
    assert told["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*/*.safetensors"))
    assert describe_stored(damaged.parent)["stored"][0]["path"] == str(damaged)
