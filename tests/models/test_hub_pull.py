"""Pulls from a server on 127.0.0.1 that speaks what huggingface_hub's download needs of the hub's protocol."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from checkpoints import write_spec, write_weights
from meddift.errors import LicenceError, ModelError, WeightsCorruptError, WeightsMissingError
from meddift.models import find_spec, load_model, model_status, pull, verify
from meddift.models.store import read_provenance
from meddift.system.homes import data_folder

COMMIT = "a" * 40
OTHER_COMMIT = "b" * 40


class Hub:
    """Files by (commit, name), and how the server misbehaves."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, str], bytes] = {}
        self.main = COMMIT
        self.refuse: tuple[int, str] | None = None
        self.send_half = False
        self.damage = False
        self.requests: list[tuple[str, str]] = []

    def publish(self, folder: Path, commit: str) -> None:
        for path in (folder / "models").iterdir():
            self.files[commit, f"models/{path.name}"] = path.read_bytes()


def handler_for(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_args: object) -> None: ...

        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            path = self.path.split("?")[0]
            hub.requests.append((self.command, path))
            if path.startswith("/cdn/"):
                commit, _, name = path.removeprefix("/cdn/").partition("/")
                self.content(hub.files[commit, name], with_body)
                return
            repository, _, rest = path.strip("/").partition("/resolve/")
            revision, _, name = rest.partition("/")
            commit = hub.main if revision == "main" else revision
            if hub.refuse is not None:
                self.fail(*hub.refuse)
            elif repository != "tests/tiny":
                self.fail(401, "RepoNotFound")
            elif commit not in {known for known, _ in hub.files}:
                self.fail(404, "RevisionNotFound")
            elif (commit, name) not in hub.files:
                self.fail(404, "EntryNotFound", commit)
            else:
                content = hub.files[commit, name]
                # As for large files on the hub: a redirect that states commit, size and sha256.
                self.send_response(302)
                # The client stops asking for facts only where a redirect leaves the hub's own host name.
                port = self.server.server_address[1]
                self.send_header("Location", f"http://localhost:{port}/cdn/{commit}/{name}")
                self.send_header("X-Repo-Commit", commit)
                self.send_header("X-Linked-Size", str(len(content)))
                self.send_header("X-Linked-Etag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("Content-Length", "0")
                self.end_headers()

        def fail(self, status: int, code: str, commit: str = "") -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", code)
            if commit:
                self.send_header("X-Repo-Commit", commit)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def content(self, content: bytes, with_body: bool) -> None:
            sent = bytes([content[0] ^ 1]) + content[1:] if hub.damage else content
            begin = 0
            if (wanted := self.headers.get("Range", "")).startswith("bytes="):
                begin = int(wanted.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if begin else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(sent) - begin))
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(sent) - 1}/{len(sent)}")
            self.end_headers()
            if with_body:
                part = sent[begin:]
                if hub.send_half:
                    self.wfile.write(part[: len(part) // 2])
                    self.close_connection = True
                    return
                self.wfile.write(part)

    return Handler


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    spec = write_spec(folder, "ddpm", accept_required=True)
    return spec, write_weights(folder / "first", spec), write_weights(folder / "second", spec, seed=1)


@pytest.fixture
def hub(published, monkeypatch):
    served = Hub()
    served.publish(published[1], COMMIT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_for(served))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_HOME", str(data_folder() / "hf"))
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def nothing_left_over() -> bool:
    return not [path for path in data_folder().rglob("*") if path.name.startswith(".") and "hf" not in path.parts]


def test_pull_installs_what_was_published_and_records_where_it_is_from(hub, published) -> None:
    spec, folder, _ = published
    steps = []
    stored = pull(spec, accept_licence=True, on_progress=steps.append)
    for role, name in (("unet", "models/unet.pt"), ("autoencoder", "models/autoencoder.pt")):
        content = hub.files[COMMIT, name]
        entry = stored[role]
        assert (entry.name, entry.bytes, entry.revision) == (name, len(content), COMMIT)
        assert entry.sha256 == hashlib.sha256(content).hexdigest()
        assert (entry.repository, entry.source) == ("tests/tiny", "huggingface")
        downloads = [step.done for step in steps if step.file == name and step.stage == "download"]
        assert downloads == sorted(downloads)
        assert downloads[-1] == len(content)
        assert [step.stage for step in steps if step.file == name][-1] == "convert"
    assert read_provenance(spec) == stored
    assert load_model(spec).weights_hash == load_model(spec, weights=folder).weights_hash
    assert verify(spec).source == "store"
    assert nothing_left_over()


def test_a_second_pull_fetches_nothing(hub, published) -> None:
    spec = published[0]
    stored = pull(spec, accept_licence=True)
    hub.requests.clear()
    assert pull(spec, accept_licence=True) == stored
    assert hub.requests == []


def test_lost_files_are_taken_from_the_commit_first_used(hub, published) -> None:
    spec, _, second = published
    stored = pull(spec, accept_licence=True)
    hub.publish(second, OTHER_COMMIT)
    hub.main = OTHER_COMMIT
    (data_folder() / "weights" / stored["unet"].converted).unlink()
    assert pull(spec, accept_licence=True) == stored
    assert load_model(spec).weights_hash


def test_rewritten_history_is_refused_and_another_revision_must_be_asked_for(hub, published) -> None:
    spec, _, second = published
    stored = pull(spec, accept_licence=True)
    (data_folder() / "weights" / stored["unet"].converted).unlink()
    hub.publish(second, COMMIT)
    with pytest.raises(WeightsCorruptError, match="was first used with"):
        pull(spec, accept_licence=True)
    assert read_provenance(spec) == stored
    hub.publish(second, OTHER_COMMIT)
    renewed = pull(spec, accept_licence=True, revision=OTHER_COMMIT)
    assert {entry.revision for entry in renewed.values()} == {OTHER_COMMIT}
    assert renewed["unet"].sha256 != stored["unet"].sha256


def test_nothing_is_fetched_before_the_licence_is_accepted(hub, published) -> None:
    spec = published[0]
    with pytest.raises(LicenceError, match=r"None: random numbers.*commercial use.*--accept-licence"):
        pull(spec, accept_licence=False)
    assert hub.requests == []
    assert not model_status(spec).installed


@pytest.mark.parametrize(
    ("refusal", "message"),
    [
        ((403, "GatedRepo"), r"is gated: accept its terms.*HF_TOKEN.*models import"),
        ((401, "RepoNotFound"), r"does not exist, or needs a login"),
        ((404, "EntryNotFound"), r"has no file models/unet\.pt"),
        ((404, "RevisionNotFound"), r"has no revision 'main'"),
        ((500, ""), r"could not fetch models/unet\.pt.*models import"),
    ],
)
def test_refusals_say_what_to_do(hub, published, refusal, message) -> None:
    hub.refuse = refusal
    with pytest.raises(WeightsMissingError, match=f"(?s){message}"):
        pull(published[0], accept_licence=True)
    assert nothing_left_over()


def test_offline_mode_is_respected(hub, published, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsMissingError, match=r"HF_HUB_OFFLINE is set.*models import"):
        pull(published[0], accept_licence=True)
    assert hub.requests == []


def test_a_server_that_is_not_there_is_said(published, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with pytest.raises(WeightsMissingError, match=r"could not fetch"):
        pull(published[0], accept_licence=True)


def test_damage_on_the_way_is_found(hub, published) -> None:
    hub.damage = True
    with pytest.raises(WeightsCorruptError, match="damaged on its way"):
        pull(published[0], accept_licence=True)
    assert not model_status(published[0]).installed
    assert nothing_left_over()


def test_what_was_installed_survives_a_failed_pull(hub, published) -> None:
    spec, _, second = published
    stored = pull(spec, accept_licence=True)
    hub.publish(second, OTHER_COMMIT)
    hub.damage = True
    with pytest.raises(WeightsCorruptError):
        pull(spec, accept_licence=True, revision=OTHER_COMMIT)
    assert read_provenance(spec) == stored
    assert verify(spec).installed


def test_a_file_that_is_no_model_is_not_installed(hub, published) -> None:
    hub.files[COMMIT, "models/autoencoder.pt"] = b"hello"
    with pytest.raises(WeightsCorruptError, match="not a weights file"):
        pull(published[0], accept_licence=True)
    assert not model_status(published[0]).installed
    # The U-Net that came first is kept, and need not come again.
    hub.publish(published[1], COMMIT)
    hub.requests.clear()
    pull(published[0], accept_licence=True)
    assert not any("unet" in path for _, path in hub.requests)


def test_models_without_a_repository_cannot_be_pulled(published, tmp_path) -> None:
    with pytest.raises(ModelError, match="nothing to pull"):
        pull(find_spec("builtin"), accept_licence=True)
    text = Path(published[0].origin).read_text().replace('repository = "tests/tiny"\n', "")
    (tmp_path / "none.toml").write_text(text)
    with pytest.raises(ModelError, match="names no repository"):
        pull(find_spec(tmp_path / "none.toml"), accept_licence=True)


def test_a_connection_that_breaks_off_installs_nothing(hub, published) -> None:
    hub.send_half = True
    with pytest.raises((WeightsMissingError, WeightsCorruptError), match=r"models/unet\.pt"):
        pull(published[0], accept_licence=True)
    assert not model_status(published[0]).installed
    assert nothing_left_over()
