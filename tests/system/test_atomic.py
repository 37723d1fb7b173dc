"""A file is either the old one or the new one."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from meddift.errors import ImageError, OutputError
from meddift.system.atomic import atomic_write, write_json, write_text


def _only(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("name", ["scan.nii.gz", "points.mrk.json", "a" * 250 + ".csv", "no suffix", "ünï.nrrd"])
def test_replaces_the_old_file_and_leaves_nothing_behind(tmp_path, name):
    (tmp_path / name).write_text("old")
    with atomic_write(tmp_path / name) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffixes[-2:] == Path(name[-20:]).suffixes[-2:]
        temporary.write_text("new")
        assert (tmp_path / name).read_text() == "old"
    assert (tmp_path / name).read_text() == "new"
    assert _only(tmp_path) == [name]


def test_suffix_can_be_asked_for(tmp_path):
    with atomic_write(tmp_path / "field", suffix=".nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_bytes(b"1")
    assert _only(tmp_path) == ["field"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError, ImageError, RuntimeError])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, interruption):
    path = tmp_path / "scan.nii.gz"
    path.write_text("old")

    def write():
        with atomic_write(path) as temporary:
            temporary.write_text("half of the n")
            raise interruption("stop")

    with pytest.raises(interruption):
        write()
    assert path.read_text() == "old"
    assert _only(tmp_path) == ["scan.nii.gz"]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("where", ["replace", "write"])
def test_what_the_system_refuses_is_said(tmp_path, monkeypatch, code, says, where):
    path = tmp_path / "scan.nii.gz"
    path.write_text("old")

    def refuse(*_arguments):
        raise OSError(code, os.strerror(code))

    if where == "replace":
        monkeypatch.setattr(os, "replace", refuse)

    def write():
        with atomic_write(path) as temporary:
            temporary.write_text("new")
            if where == "write":
                refuse()

    with pytest.raises(OutputError, match=says) as caught:
        write()
    assert str(path) in str(caught.value)
    assert path.read_text() == "old"
    assert _only(tmp_path) == ["scan.nii.gz"]


def test_errors_of_simpleitk_become_one_sentence(tmp_path):
    import SimpleITK as sitk  # noqa: N813

    path = tmp_path / "scan.unknown"
    with pytest.raises(OutputError, match=r"scan\.unknown") as caught, atomic_write(path) as temporary:
        sitk.WriteImage(sitk.Image(2, 2, 2, sitk.sitkInt16), str(temporary))
    assert "\n" not in str(caught.value)
    assert _only(tmp_path) == []


def test_targets_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    for path, says in [
        (tmp_path / "folder", "is a folder"),
        (tmp_path / "missing" / "scan.nii", "does not exist"),
        (tmp_path / "file" / "scan.nii", "is a file, not a folder"),
        (tmp_path / ("x" * 300), "name is too long"),
    ]:
        with pytest.raises(OutputError, match=says), atomic_write(path):
            pytest.fail("the block must not run")
    assert _only(tmp_path) == ["file", "folder"]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no such device here")
def test_a_device_is_not_replaced():
    with pytest.raises(OutputError, match="device"), atomic_write("/dev/null"):
        pytest.fail("the block must not run")
    assert not Path("/dev/null").is_file()


def test_a_writer_that_writes_nothing_is_an_error(tmp_path):
    (tmp_path / "scan.nii").write_text("old")
    with pytest.raises(OutputError, match="without creating a file"), atomic_write(tmp_path / "scan.nii"):
        pass
    assert (tmp_path / "scan.nii").read_text() == "old"


def test_text_and_json(tmp_path):
    write_text("one\ntwo µ\n", tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_bytes() == "one\ntwo µ\n".encode()
    content = {"name": "Läsion", "positions": [1.5, None], "valid": True}
    write_json(content, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == content
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json({"value": float("nan")}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == content
