from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from checkpoints import unet_content, write_spec, write_weights
from meddift.errors import ModelError, OutputError, WeightsCorruptError, WeightsMissingError
from meddift.geometry import Grid
from meddift.models import find_spec, import_weights, load_model, locate_weights, model_status, verify
from meddift.models.store import file_sha256, provenance_path, read_provenance, weights_folder
from meddift.system.homes import data_folder
from meddift.volume import Volume


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    spec = write_spec(folder, "ddpm")
    return spec, write_weights(folder, spec)


def features(model) -> np.ndarray:
    image = np.random.default_rng(0).random((32, 32, 32), dtype=np.float32)
    latent = model.encode(Volume(image, Grid(image.shape, np.eye(4))))
    return model.levels(latent, timestep=20, levels=["up3"], noise_seed=1)["up3"].data


def with_file_facts(spec_path: Path, target: Path, role: str, **facts: object):
    """A copy of a specification that knows sha256 or bytes of a file."""
    lines = "".join(f"{key} = {json.dumps(value)}\n" for key, value in facts.items())
    text = spec_path.read_text().replace(f'role = "{role}"\n', f'role = "{role}"\n{lines}')
    target.write_text(text)
    return find_spec(target)


def test_missing_weights_say_where_was_looked_and_what_to_do(published, tmp_path) -> None:
    spec, _ = published
    with pytest.raises(WeightsMissingError) as caught:
        locate_weights(spec, tmp_path)
    text = str(caught.value)
    assert str(tmp_path / "models" / "unet.pt") in text
    assert str(tmp_path / "old_unet.pt") in text
    assert "meddift models pull" in text
    assert "meddift models import" in text
    assert "--weights DIR" in text
    with pytest.raises(WeightsMissingError, match=r"provenance\.json"):
        locate_weights(spec)
    with pytest.raises(FileNotFoundError):
        load_model("maisi-ct-ddpm")
    assert not data_folder().exists() or not any(data_folder().iterdir())


def test_published_names_older_names_and_flat_folders_are_found(published, tmp_path) -> None:
    spec, folder = published
    assert set(locate_weights(spec, folder).files) == {"unet", "autoencoder"}
    for name in ("unet.pt", "old_unet.pt"):
        flat = tmp_path / name.replace(".", "-")
        flat.mkdir()
        shutil.copy(folder / "models" / "unet.pt", flat / name)
        shutil.copy(folder / "models" / "autoencoder.pt", flat / "autoencoder.pt")
        located = locate_weights(spec, flat)
        assert located.files["unet"] == (flat / name,)
        assert located.digest() == locate_weights(spec, folder).digest()


def test_a_folder_that_has_only_one_of_two_files_says_which(published, tmp_path) -> None:
    spec, folder = published
    shutil.copy(folder / "models" / "unet.pt", tmp_path / "unet.pt")
    with pytest.raises(WeightsMissingError) as caught:
        locate_weights(spec, tmp_path)
    assert f"Found:\n  {tmp_path / 'unet.pt'}" in str(caught.value)
    assert str(tmp_path / "autoencoder.pt") in str(caught.value)


def test_import_gives_the_same_model_as_the_folder(published) -> None:
    spec, folder = published
    assert not model_status(spec).installed
    stored = import_weights(spec, folder)
    path = folder / "models" / "unet.pt"
    assert stored["unet"].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert stored["unet"].bytes == path.stat().st_size
    assert read_provenance(spec) == stored
    one, two = load_model(spec), load_model(spec, weights=folder)
    assert one.weights_hash == two.weights_hash
    assert one.scale_factor == two.scale_factor
    np.testing.assert_array_equal(features(one), features(two))
    status = verify(spec)
    assert status.installed
    assert status.source == "store"
    assert status.bytes == sum(file.stat().st_size for file in weights_folder().iterdir())
    # Only the encoder is kept, and no pickle.
    assert {file.suffix for file in weights_folder().iterdir()} == {".safetensors"}
    assert status.bytes < sum((folder / "models" / name).stat().st_size for name in ("unet.pt", "autoencoder.pt"))


def test_weights_hash_tells_weights_apart(published, tmp_path) -> None:
    spec, folder = published
    other = write_weights(tmp_path, spec, seed=1)
    assert locate_weights(spec, folder).digest() != locate_weights(spec, other).digest()


def test_other_weights_than_those_first_used_are_refused_until_asked_for(published, tmp_path) -> None:
    spec, folder = published
    first = import_weights(spec, folder)
    other = write_weights(tmp_path, spec, seed=1)
    with pytest.raises(WeightsCorruptError, match="was first used with") as caught:
        import_weights(spec, other)
    assert str(provenance_path(spec)) in str(caught.value)
    assert read_provenance(spec) == first
    assert import_weights(spec, folder) == first
    assert import_weights(spec, other, replace=True) != first


def test_a_damaged_file_is_never_imported(published, tmp_path) -> None:
    spec, _ = published
    folder = write_weights(tmp_path, spec)
    (folder / "models" / "autoencoder.pt").write_bytes(b"oops")
    with pytest.raises(WeightsCorruptError):
        import_weights(spec, folder)
    assert not model_status(spec).installed
    assert not provenance_path(spec).exists()


def test_known_size_and_hash_are_compared(published, tmp_path) -> None:
    spec, folder = published
    path = folder / "models" / "unet.pt"
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    good = with_file_facts(Path(spec.origin), tmp_path / "a.toml", "unet", sha256=right, bytes=path.stat().st_size)
    assert locate_weights(good, folder).files["unet"] == (path,)
    wrong = with_file_facts(Path(spec.origin), tmp_path / "b.toml", "unet", sha256="0" * 64)
    with pytest.raises(WeightsCorruptError, match=r"0000.*fetch it again"):
        locate_weights(wrong, folder)
    with pytest.raises(WeightsCorruptError, match="0000"):
        import_weights(wrong, folder)
    small = with_file_facts(Path(spec.origin), tmp_path / "c.toml", "autoencoder", bytes=5)
    with pytest.raises(WeightsCorruptError, match="but the autoencoder of tiny-ddpm has 5"):
        locate_weights(small, folder)


def test_verify_finds_a_flipped_bit_even_with_old_times(published) -> None:
    spec, folder = published
    stored = import_weights(spec, folder)
    verify(spec)
    path = weights_folder() / stored["unet"].converted
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(WeightsCorruptError, match="has changed since it was stored"):
        verify(spec)
    path.unlink()
    with pytest.raises(WeightsMissingError, match=path.name):
        load_model(spec)


def test_damaged_provenance_says_what_to_do(published) -> None:
    spec, folder = published
    import_weights(spec, folder)
    provenance_path(spec).write_text('{"files": {"unet": {"nam')
    with pytest.raises(WeightsCorruptError, match="delete it and pull or import"):
        load_model(spec)
    status = model_status(spec)
    assert not status.installed
    assert "delete it" in status.missing


def test_weights_that_come_with_the_model_are_neither_pulled_nor_imported(tmp_path) -> None:
    with pytest.raises(ModelError, match="come with it"):
        import_weights(find_spec("builtin"), tmp_path)
    text = (Path(write_spec(tmp_path, "haar").origin)).read_text()
    text = text.replace('repository = "tests/tiny"', 'folder = "own"').replace("tiny-haar", "tiny-own")
    (tmp_path / "own.toml").write_text(text)
    spec = find_spec(tmp_path / "own.toml")
    with pytest.raises(WeightsMissingError, match="should lie in"):
        load_model(spec)
    write_weights(tmp_path / "own", spec)
    assert locate_weights(spec).source == "package"
    assert verify(spec).installed


def test_hashes_are_remembered_until_the_file_changes(tmp_path, monkeypatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    assert file_sha256(path) == hashlib.sha256(b"one").hexdigest()
    monkeypatch.setattr(hashlib, "sha256", None)
    assert file_sha256(path) != ""
    monkeypatch.undo()
    path.write_bytes(b"two")
    assert file_sha256(path) == hashlib.sha256(b"two").hexdigest()
    assert file_sha256(path, fresh=True) == hashlib.sha256(b"two").hexdigest()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_others_can_read_what_is_stored_in_a_shared_folder(published) -> None:
    spec, folder = published
    before = os.umask(0o022)
    try:
        import_weights(spec, folder)
    finally:
        os.umask(before)
    files = [path for path in data_folder().rglob("*") if path.is_file()]
    assert {path.name for path in files} > {"provenance.json", "hashes.json"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
    assert {path.stat().st_mode & 0o777 for path in data_folder().rglob("*") if path.is_dir()} == {0o755}


def test_a_store_that_cannot_be_written_is_said(published, tmp_path, monkeypatch) -> None:
    spec, folder = published
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("MEDDIFT_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="cannot write"):
        import_weights(spec, folder)
    # Reading needs no store.
    assert load_model(spec, weights=folder).weights_hash


def test_status_needs_no_torch(published) -> None:
    spec, folder = published
    import_weights(spec, folder)
    code = (
        "import sys; from meddift.models import find_spec, model_status\n"
        f"status = model_status(find_spec({spec.origin!r}))\n"
        "assert status.installed and status.bytes > 0, status\n"
        "assert not {'torch', 'monai', 'safetensors', 'huggingface_hub'} & sys.modules.keys()"
    )
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_scale_factor_survives_the_conversion_exactly(published, tmp_path) -> None:
    import torch

    spec, _ = published
    folder = write_weights(tmp_path, spec)
    value = float(np.float32(1 / 3))
    torch.save(unet_content(spec, scale_factor=torch.tensor(value)), folder / "models" / "unet.pt")
    import_weights(spec, folder)
    assert load_model(spec).scale_factor == value
