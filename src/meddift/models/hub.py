"""Fetching published weights from Hugging Face, when a person asks for it; the only code here that uses a network."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from meddift.errors import LicenceError, ModelError, OutputError, WeightsCorruptError, WeightsMissingError
from meddift.models.spec import ModelSpec, WeightFile
from meddift.models.store import StoredFile, file_sha256, read_provenance, write_provenance
from meddift.models.weights import check_unchanged, is_stored, refuse_packaged, store_file
from meddift.system.homes import data_folder
from meddift.system.temporary import temporary_folder

#: How long to wait for the first answer of the server, seconds.
_TIMEOUT = 20.0


@dataclass(frozen=True)
class PullProgress:
    """One step of a download.

    Attributes:
        file: Published name.
        done: Bytes that are here.
        total: Bytes of the file, 0 where the server does not say.
        stage: "download" or "convert".
    """

    file: str
    done: int
    total: int
    stage: str


def pull(
    spec: ModelSpec,
    *,
    accept_licence: bool,
    revision: str | None = None,
    on_progress: Callable[[PullProgress], None] | None = None,
) -> dict[str, StoredFile]:
    """Download a model's weights, check them, convert them and put them into the store.

    The commit that a file was taken from, its sha256 and size are recorded on first use; later pulls take the
    same commit and must give the same bytes. Files that are here already are not fetched again.
    `HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE` and the usual proxy variables are respected. An interrupted
    download leaves what was installed before untouched.

    Args:
        spec: The model.
        accept_licence: Whether the user has accepted the licence of the weights.
        revision: Another commit or tag than the recorded one; what it holds is then taken.
        on_progress: Called now and then with a PullProgress.

    Returns:
        Role -> what was stored.

    Raises:
        LicenceError: if the licence must be accepted and was not.
        WeightsMissingError: if the files cannot be fetched: no network, offline mode, no access, no such file.
        WeightsCorruptError: if they are not what was published, or not what was used first.
        ModelError: if the model has no repository.
        OutputError: if the disk is full or the store cannot be written.
    """
    refuse_packaged(spec, "pull")
    if not all(file.repository or spec.weights.repository for file in spec.weights.files):
        raise ModelError(f"the specification of {spec.name} names no repository; use `meddift models import`")
    if spec.licence.accept_required and not accept_licence:
        use = "" if spec.licence.commercial else " It does not allow commercial use."
        raise LicenceError(
            f"the weights of {spec.name} are under: {spec.licence.name}, {spec.licence.url}.{use} "
            f"If you accept it, repeat with: meddift models pull {spec.origin or spec.name} --accept-licence"
        )
    known = read_provenance(spec)
    files: dict[str, StoredFile] = {}
    try:
        data_folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to {data_folder()}: {error.strerror or error}") from error
    with temporary_folder("download", inside=data_folder()) as scratch:
        for file in spec.weights.files:
            earlier = known.get(file.role)
            if earlier is not None and revision is None and is_stored(earlier):
                files[file.role] = earlier
                continue
            pinned = (earlier.revision if earlier else "") or (spec.weights.revision if not file.repository else "")
            path, commit = _fetch(spec, file, revision or pinned or "main", scratch, on_progress)
            sha256 = file_sha256(path)
            check_unchanged(spec, file.role, sha256, known, replace=revision is not None)
            size = path.stat().st_size
            if on_progress is not None:
                on_progress(PullProgress(file.name, size, size, "convert"))
            files[file.role] = store_file(
                spec,
                file.role,
                path,
                name=file.name,
                sha256=sha256,
                source="huggingface",
                repository=file.repository or spec.weights.repository,
                revision=commit,
            )
            # After each file, so that what is here stays here if the next one fails.
            write_provenance(spec, {**known, **files})
    return files


def _fetch(
    spec: ModelSpec,
    file: WeightFile,
    revision: str,
    scratch: Path,
    on_progress: Callable[[PullProgress], None] | None,
) -> tuple[Path, str]:
    """Download one file into `scratch`; its path and the commit it is from."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    repository = file.repository or spec.weights.repository
    endpoint = os.environ.get("HF_ENDPOINT") or None
    by_hand = (
        f"On a machine with internet fetch {file.name} from https://huggingface.co/{repository}, then run: "
        f"meddift models import {spec.origin or spec.name} --from DIR"
    )
    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        raise WeightsMissingError(f"HF_HUB_OFFLINE is set, so nothing is downloaded. {by_hand}")
    try:
        url = huggingface_hub.hf_hub_url(repository, file.name, revision=revision, endpoint=endpoint)
        published = huggingface_hub.get_hf_file_metadata(url, timeout=_TIMEOUT)
        commit = published.commit_hash or revision
        options: dict[str, Any] = {}
        if on_progress is not None:
            options["tqdm_class"] = _reporter(file.name, on_progress)
        found = huggingface_hub.hf_hub_download(
            repository, file.name, revision=commit, local_dir=scratch, endpoint=endpoint, **options
        )
    except errors.GatedRepoError as error:
        raise WeightsMissingError(
            f"{repository} is gated: accept its terms at https://huggingface.co/{repository} and log in with "
            f"`hf auth login` (or set HF_TOKEN), then repeat. {by_hand}"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        # Its name is of another case (a subclass of "no such entry"): the server was lost between two requests.
        raise WeightsMissingError(f"could not fetch {file.name} of {repository}: {error}. {by_hand}") from error
    except errors.EntryNotFoundError as error:
        raise WeightsMissingError(f"{repository} has no file {file.name} at revision {revision}") from error
    except errors.RevisionNotFoundError as error:
        raise WeightsMissingError(f"{repository} has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise WeightsMissingError(f"{repository} does not exist, or needs a login (HF_TOKEN). {by_hand}") from error
    except Exception as error:
        # The hub's client raises whatever its HTTP library raises (httpx or requests, by version), and OSError
        # for a full disk as well as for a lost connection.
        if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
            raise OutputError(f"cannot write {error.filename}: {error.strerror}") from error
        raise WeightsMissingError(f"could not fetch {file.name} of {repository}: {error}. {by_hand}") from error
    path = Path(found)
    _check_download(path, published, file, repository)
    return path, commit


def _check_download(path: Path, published: Any, file: WeightFile, repository: str) -> None:
    """Compare a download with the size and sha256 that the hub itself states for large files."""
    size = path.stat().st_size
    if published.size is not None and size != published.size:
        raise WeightsCorruptError(f"{file.name} of {repository} came as {size} of {published.size} bytes; pull again")
    stated = str(published.etag or "")
    if re.fullmatch(r"[0-9a-f]{64}", stated) and file_sha256(path) != stated:
        raise WeightsCorruptError(f"{file.name} of {repository} was damaged on its way (sha256 differs); pull again")


def _reporter(name: str, on_progress: Callable[[PullProgress], None]) -> Any:
    """A progress bar class that calls instead of printing."""
    from huggingface_hub import utils

    base: Any = utils.tqdm  # type: ignore[attr-defined]

    class Reporter(base):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = True
            super().__init__(*args, **kwargs)
            self._done, self._total = int(kwargs.get("initial") or 0), int(kwargs.get("total") or 0)

        def update(self, n: float | None = 1) -> None:
            self._done += int(n or 0)
            on_progress(PullProgress(name, self._done, self._total, "download"))

    return Reporter
