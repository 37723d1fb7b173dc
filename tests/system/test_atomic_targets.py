"""Links, pipes, permissions, several files at once, and what killed runs leave."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from meddift.errors import OutputError, PointsError
from meddift.system.atomic import atomic_write, check_writable, write_text, write_together
from meddift.system.targets import is_same_file
from meddift.system.temporary import sweep_tree

posix = pytest.mark.skipif(os.name != "posix", reason="as POSIX has it")


def _only(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@posix
def test_a_link_is_written_through(tmp_path):
    (tmp_path / "results").mkdir()
    real, link, second = tmp_path / "results" / "real.csv", tmp_path / "link.csv", tmp_path / "second.csv"
    real.write_text("old")
    link.symlink_to("results/real.csv")
    second.symlink_to(link)
    write_text("new", second)
    assert real.read_text() == "new"
    assert link.is_symlink()
    assert second.is_symlink()
    assert _only(tmp_path / "results") == ["real.csv"]


@posix
def test_a_link_to_nothing_makes_what_it_names(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "folder").symlink_to("results")
    link = tmp_path / "folder" / "link.csv"
    link.symlink_to("../not-yet.csv")
    write_text("new", link)
    assert (tmp_path / "not-yet.csv").read_text() == "new"
    assert link.is_symlink()


@posix
def test_links_in_a_circle_and_sockets_are_refused(tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OutputError, match="circle"):
        check_writable(tmp_path / "a")


@posix
def test_a_pipe_is_written_to_and_stays(tmp_path):
    pipe = tmp_path / "points.csv"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    check_writable(pipe)
    write_text("label\n", pipe)
    reader.join(10)
    assert got == ["label\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert _only(tmp_path) == ["points.csv"]


@posix
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link.csv"])
@pytest.mark.parametrize("into", ["pipe", "file"])
def test_standard_output_as_a_file(tmp_path, name, into):
    if not name.startswith("/"):
        (tmp_path / name).symlink_to("/dev/stdout")
        name = str(tmp_path / name)
    code = f"""
from meddift.system.atomic import write_text
print("before")
write_text("content\\n", {name!r})
print("after", flush=True)
"""
    out = tmp_path / "redirected"
    before = os.lstat("/dev/stdout")
    if into == "file":
        with out.open("w") as stream:
            subprocess.run([sys.executable, "-c", code], check=True, stdout=stream)
        text = out.read_text()
    else:
        text = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert text == "before\ncontent\nafter\n"
    assert os.lstat("/dev/stdout").st_ino == before.st_ino


@posix
def test_permissions_are_those_of_the_old_file_or_of_any_new_one(tmp_path):
    from safetensors.numpy import save

    def write(path):
        with atomic_write(path) as temporary:
            temporary.write_bytes(save({}))
            temporary.chmod(0o600)  # as the writer of safetensors does

    old = os.umask(0o027)
    try:
        write(tmp_path / "new")
        (tmp_path / "private").write_text("old")
        (tmp_path / "private").chmod(0o600)
        (tmp_path / "shared").write_text("old")
        (tmp_path / "shared").chmod(0o664)
        write(tmp_path / "private")
        write(tmp_path / "shared")
    finally:
        os.umask(old)
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in _only(tmp_path)}
    assert modes == {"new": 0o640, "private": 0o600, "shared": 0o664}


class TestTogether:
    """Several files are one transaction."""

    def test_all_are_written(self, tmp_path):
        (tmp_path / "a").write_text("old a")
        write_together(
            {tmp_path / "a": lambda path: path.write_text("a"), tmp_path / "b": lambda p: p.write_text("b")}
        )
        assert {name: (tmp_path / name).read_text() for name in _only(tmp_path)} == {"a": "a", "b": "b"}

    def test_a_writer_that_fails_costs_all_and_the_message_names_the_real_path(self, tmp_path):
        (tmp_path / "a").write_text("old a")

        def fail(path: Path) -> None:
            raise PointsError(f"{path}: no")

        with pytest.raises(PointsError) as caught:
            write_together({tmp_path / "a": lambda path: path.write_text("a"), tmp_path / "b": fail})
        assert str(caught.value) == f"{tmp_path / 'b'}: no"
        assert {name: (tmp_path / name).read_text() for name in _only(tmp_path)} == {"a": "old a"}

    @pytest.mark.parametrize("links", [True, False])
    @pytest.mark.parametrize("fails_at", [1, 2, 3])
    def test_a_target_that_cannot_be_replaced_puts_the_others_back(self, tmp_path, monkeypatch, fails_at, links):
        for name in "ac":
            (tmp_path / name).write_text(f"old {name}")
        replace, calls = os.replace, []

        def refuse(source, target):
            calls.append(target)
            if len(calls) == fails_at:
                raise PermissionError(13, "Permission denied")
            replace(source, target)

        def no_links(*_arguments):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "replace", refuse)
        if not links:
            monkeypatch.setattr(os, "link", no_links)
        names = ["a", "b", "c"]
        with pytest.raises(OutputError, match=f"cannot write .*{names[fails_at - 1]}: .*Nothing was changed"):
            write_together({tmp_path / name: lambda path, name=name: path.write_text(name) for name in names})
        left = {name: (tmp_path / name).read_text() for name in _only(tmp_path)}
        assert left == {"a": "old a", "c": "old c"}

    @posix
    def test_ctrl_c_waits_until_all_have_taken_their_places(self, tmp_path, monkeypatch):
        for name in "ab":
            (tmp_path / name).write_text("old")
        replace = os.replace

        def interrupt(source, target):
            replace(source, target)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)

        monkeypatch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_together({tmp_path / name: lambda path: path.write_text("new") for name in "ab"})
        assert {name: (tmp_path / name).read_text() for name in _only(tmp_path)} == {"a": "new", "b": "new"}

    @posix
    def test_a_reader_of_the_pipe_that_has_gone_leaves_the_files_as_they_were(self, tmp_path):
        (tmp_path / "a").write_text("old")
        read, write = os.pipe()
        os.close(read)
        try:
            with pytest.raises(BrokenPipeError):
                write_together(
                    {
                        tmp_path / "a": lambda p: p.write_text("new"),
                        Path(f"/dev/fd/{write}"): lambda p: p.write_text("x"),
                    }
                )
        finally:
            os.close(write)
        assert {name: (tmp_path / name).read_text() for name in _only(tmp_path)} == {"a": "old"}


def _killed_while_writing(folder: Path) -> Path:
    """What a run leaves that was killed in the middle of writing."""
    code = f"""
import os, signal
from meddift.system.atomic import atomic_write
with atomic_write({str(folder / "found.csv")!r}) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = folder.glob(".tmp-*")
    return left


@posix
def test_what_a_killed_run_left_is_swept_when_it_is_old_and_nothing_else(tmp_path, monkeypatch):
    from meddift.system import temporary

    left = _killed_while_writing(tmp_path)
    others = [".tmp-notes.txt", ".tmp-meddift-backup", ".tmp-0123-mine.csv", "tmp.csv"]
    days_ago = time.time() - 3 * 24 * 3600
    for name in others:
        (tmp_path / name).write_text("the user's")
        os.utime(tmp_path / name, (days_ago, days_ago))
    in_use = temporary.temporary_path(tmp_path / "b.csv")  # of this process, which is still there
    in_use.write_text("half")

    def write() -> None:
        monkeypatch.setattr(temporary, "_swept", set())
        write_text("x", tmp_path / "out.csv")

    write()
    assert left.exists()  # it is not old yet
    os.utime(left, (days_ago, days_ago))
    os.utime(in_use, (time.time() + 1, time.time() - 7200))
    monkeypatch.setattr(temporary, "was_running", lambda process, when: process == os.getpid())
    write()
    assert not left.exists()
    assert in_use.exists()
    assert all((tmp_path / name).exists() for name in others)


@posix
def test_what_a_process_has_left_is_removed_once_it_has_ended_although_its_parent_never_asks(tmp_path):
    program = (
        "import sys; from pathlib import Path; from meddift.system.temporary import temporary_path; "
        "temporary_path(Path(sys.argv[1])).write_text('half'); print('written', flush=True); "
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "result.json")]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        sweep_tree(tmp_path)
        assert len(_only(tmp_path)) == 1  # it may still be writing
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays in the table
        sweep_tree(tmp_path)
        assert _only(tmp_path) == []
    finally:
        child.kill()
        child.communicate()


def test_one_file_by_any_spelling(tmp_path, monkeypatch):
    (tmp_path / "scan.nii").write_text("x")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert is_same_file(Path("../scan.nii"), tmp_path / "scan.nii")
    assert is_same_file(Path("../not-there"), tmp_path / "sub" / ".." / "not-there")
    assert not is_same_file(Path("../not-there"), tmp_path / "scan.nii")
    if os.name == "posix":
        (tmp_path / "soft").symlink_to("scan.nii")
        os.link(tmp_path / "scan.nii", tmp_path / "hard")
        assert is_same_file(tmp_path / "soft", tmp_path / "hard")
        (tmp_path / "dangling").symlink_to("sub/new.nii")
        assert is_same_file(tmp_path / "dangling", tmp_path / "sub" / "new.nii")
