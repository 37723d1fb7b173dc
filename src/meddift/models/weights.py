"""Where a model's weights are on this machine, and how they get there without a network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from meddift.errors import ModelError, OutputError, WeightsCorruptError, WeightsMissingError
from meddift.models.spec import Licence, ModelSpec, WeightFile
from meddift.models.store import (
    StoredFile,
    file_sha256,
    provenance_path,
    read_provenance,
    weights_folder,
    write_provenance,
)
from meddift.system.atomic import atomic_write
from meddift.system.temporary import sweep_store


@dataclass(frozen=True)
class WeightsLocation:
    """Weights found on this machine.

    Attributes:
        files: Role -> its file, or the parts of it in order.
        source: "package" (or folder beside a user's spec), "folder" or "store".
        known_sha256: Role -> sha256 of the published file, where the files are converted ones.
    """

    files: Mapping[str, tuple[Path, ...]]
    source: str
    known_sha256: Mapping[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """sha256 over the published files of all roles; the same whether they were converted or not."""
        state = hashlib.sha256()
        for role, paths in sorted(self.files.items()):
            hashes = [self.known_sha256[role]] if role in self.known_sha256 else [file_sha256(path) for path in paths]
            state.update(f"{role}:{','.join(hashes)}\n".encode())
        return state.hexdigest()


@dataclass(frozen=True)
class ModelStatus:
    """What can be said about a model without loading it.

    Attributes:
        name: Of the model.
        title: One line.
        installed: Whether all weights are on this machine.
        source: "package", "folder", "store", or "" if not installed.
        files: Where the weights lie.
        bytes: Their size on disk; where not installed, the published size if the catalogue knows it, else 0.
        licence: Terms.
        missing: Why it is not installed; "" if it is.
    """

    name: str
    title: str
    installed: bool
    source: str
    files: tuple[Path, ...]
    bytes: int
    licence: Licence
    missing: str


def locate_weights(spec: ModelSpec, weights_dir: Path | None = None) -> WeightsLocation:
    """Find a model's weights: in the folder given, else beside its specification, else in the store.

    Args:
        spec: The model.
        weights_dir: Folder with the published files, under today's or older names.

    Raises:
        WeightsMissingError: if a file is missing; it lists where was looked and what to do.
        WeightsCorruptError: if a file has another sha256 or size than the specification says.
    """
    if weights_dir is not None:
        return _in_folder(spec, Path(weights_dir))
    if spec.weights.folder:
        return _beside_spec(spec)
    stored = read_provenance(spec)
    wanted = {file.role for file in spec.weights.files}
    paths = {role: weights_folder() / stored[role].converted for role in wanted & stored.keys()}
    looked = [str(path) for path in paths.values() if not path.is_file()]
    if wanted - paths.keys():
        try:
            looked.append(str(provenance_path(spec)))
        except OutputError as error:  # there is nowhere to look
            looked.append(str(error))
    if looked:
        raise _missing(spec, looked)
    return WeightsLocation(
        {role: (path,) for role, path in paths.items()}, "store", {role: stored[role].sha256 for role in wanted}
    )


def import_weights(spec: ModelSpec, source_dir: Path, *, replace: bool = False) -> dict[str, StoredFile]:
    """Check the published files in a folder, convert them and put them into the store.

    Args:
        spec: The model.
        source_dir: Folder with the published files.
        replace: Take them even if other files of the same model are in the store.

    Returns:
        Role -> what was stored.

    Raises:
        WeightsMissingError: if a file is not in the folder.
        WeightsCorruptError: if a file is damaged, unsafe, of another model, or another one than is stored.
        ModelError: if the model's weights come with the package.
        OutputError: if the store cannot be written.
    """
    refuse_packaged(spec, "import")
    located = _in_folder(spec, Path(source_dir))
    known = read_provenance(spec)
    files = {}
    for role, paths in located.files.items():
        if len(paths) != 1:
            raise ModelError(f"{spec.name} has weights in several parts; use them with --weights {source_dir}")
        sha256 = file_sha256(paths[0])
        check_unchanged(spec, role, sha256, known, replace=replace)
        files[role] = store_file(spec, role, paths[0], name=paths[0].name, sha256=sha256, source="import")
    write_provenance(spec, files)
    return files


def store_file(
    spec: ModelSpec,
    role: str,
    path: Path,
    *,
    name: str,
    sha256: str,
    source: str,
    repository: str = "",
    revision: str = "",
) -> StoredFile:
    """Check one published file against the specification and convert it to safetensors in the store.

    Raises:
        WeightsCorruptError: if it is damaged, unsafe or of another model.
        OutputError: if the store cannot be written.
    """
    from safetensors.torch import save_file

    from meddift.models.loader import load_role, scale_factor_of

    checkpoint = load_role(spec, role, [path])
    # One entry at most: safetensors writes several in random order, and equal files should have equal hashes.
    metadata = {"scale_factor": repr(scale_factor_of(spec, checkpoint, [path]))} if role == "unet" else None
    target = weights_folder() / f"{role}-{sha256}.safetensors"
    sweep_store(target.parent)
    with atomic_write(target, make_folder=True) as temporary:
        save_file({key: tensor.contiguous() for key, tensor in checkpoint.tensors.items()}, temporary, metadata)
    return StoredFile(
        name=name,
        sha256=sha256,
        bytes=path.stat().st_size,
        source=source,
        repository=repository,
        revision=revision,
        converted=target.name,
        converted_sha256=file_sha256(target),
    )


def verify(spec: ModelSpec, weights_dir: Path | None = None) -> ModelStatus:
    """Read every byte of a model's weights again and compare with what is known about them.

    Raises:
        WeightsMissingError: if they are not there.
        WeightsCorruptError: if they have changed.
    """
    located = locate_weights(spec, weights_dir)
    if located.source == "store":
        stored = read_provenance(spec)
        for role, (path, *_) in located.files.items():
            found = file_sha256(path, fresh=True)
            if found != stored[role].converted_sha256:
                raise WeightsCorruptError(
                    f"{path} has changed since it was stored (sha256 {found}, was {stored[role].converted_sha256}); "
                    f"pull or import {spec.name} again"
                )
            _check_published(spec, _file(spec, role), stored[role].sha256, stored[role].bytes, str(path))
    from meddift.models.loader import load_role

    for role, paths in located.files.items():
        load_role(spec, role, paths)
    return _status_of(spec, located)


def model_status(spec: ModelSpec, weights_dir: Path | None = None) -> ModelStatus:
    """Whether a model is installed, where and how large; loads neither torch nor MONAI."""
    try:
        return _status_of(spec, locate_weights(spec, weights_dir))
    except ModelError as error:
        published = sum(file.bytes for file in spec.weights.files)
        return ModelStatus(spec.name, spec.title, False, "", (), published, spec.licence, str(error))


def check_unchanged(
    spec: ModelSpec, role: str, sha256: str, known: Mapping[str, StoredFile], *, replace: bool = False
) -> None:
    """Raise if a published file is another one than the catalogue or an earlier use says.

    Raises:
        WeightsCorruptError: if it is.
    """
    _check_published(spec, _file(spec, role), sha256, 0, f"the {role} file")
    if role in known and known[role].sha256 != sha256 and not replace:
        raise WeightsCorruptError(
            f"the {role} file has sha256 {sha256}, but {spec.name} was first used with {known[role].sha256} "
            f"({provenance_path(spec)}). If the publisher replaced it and you want the new one, delete that file "
            "and repeat the command"
        )


def is_stored(file: StoredFile) -> bool:
    """Whether the converted file lies in the store as it was put there."""
    path = weights_folder() / file.converted
    return path.is_file() and file_sha256(path) == file.converted_sha256


def refuse_packaged(spec: ModelSpec, verb: str) -> None:
    """Raise ModelError for models whose weights come with their specification."""
    if spec.weights.folder:
        raise ModelError(f"the weights of {spec.name} come with it; there is nothing to {verb}")


# ---------------------------------------------------------------------- internals


def _file(spec: ModelSpec, role: str) -> WeightFile:
    """The specification's file of a role."""
    return next(file for file in spec.weights.files if file.role == role)


def _in_folder(spec: ModelSpec, folder: Path) -> WeightsLocation:
    """Published files in a user's folder."""
    found: dict[str, tuple[Path, ...]] = {}
    looked: list[str] = []
    for file in spec.weights.files:
        names = [name for whole in (file.name, *file.older_names) for name in (whole, Path(whole).name)]
        places = [folder / name for name in dict.fromkeys(names)]
        paths = next((paths for place in places if (paths := _files_at(place))), ())
        if not paths:
            looked += [str(place) for place in places]
            continue
        found[file.role] = paths
        if file.sha256 or file.bytes:
            size = sum(path.stat().st_size for path in paths)
            sha256 = file_sha256(paths[0]) if file.sha256 else ""
            _check_published(spec, file, sha256, size, str(paths[0]))
    if looked:
        raise _missing(spec, looked, found=[str(path) for paths in found.values() for path in paths])
    return WeightsLocation(found, "folder")


def _beside_spec(spec: ModelSpec) -> WeightsLocation:
    """Weights that come with a specification: in the package, or in a folder beside a user's file."""
    base = Path(spec.origin).parent if spec.origin else Path(__file__).parent / "weights"
    folder = base / spec.weights.folder
    try:
        located = _in_folder(spec, folder)
    except WeightsMissingError as error:
        advice = "" if spec.origin else "; this installation of meddift is incomplete, install it again"
        raise WeightsMissingError(f"the weights of {spec.name} should lie in {folder}, but do not{advice}") from error
    return WeightsLocation(located.files, "package")


def _files_at(place: Path) -> tuple[Path, ...]:
    """The file at a path, or the parts that match it as a glob, in order."""
    if any(sign in place.name for sign in "*?["):
        return tuple(sorted(path for path in place.parent.glob(place.name) if path.is_file()))
    return (place,) if place.is_file() else ()


def _check_published(spec: ModelSpec, file: WeightFile, sha256: str, size: int, where: str) -> None:
    """Raise if a published file has another size or sha256 than the specification says; "" and 0 = not known."""
    if file.bytes and size and size != file.bytes:
        raise WeightsCorruptError(f"{where} has {size} bytes, but the {file.role} of {spec.name} has {file.bytes}")
    if file.sha256 and sha256 and sha256 != file.sha256:
        raise WeightsCorruptError(
            f"{where} has sha256 {sha256}, but the {file.role} of {spec.name} has {file.sha256}; fetch it again"
        )


def _missing(spec: ModelSpec, looked: list[str], *, found: list[str] | None = None) -> WeightsMissingError:
    """The error that says where was looked and which commands help."""
    name = spec.origin or spec.name
    lines = [f"the weights of {spec.name} are not on this machine. Looked for:", *(f"  {place}" for place in looked)]
    if found:
        lines += ["Found:", *(f"  {place}" for place in found)]
    lines += [
        "With internet:     " + f"meddift models pull {name}",
        "Without internet:  " + f"meddift models import {name} --from DIR   (or --weights DIR for one command)",
    ]
    return WeightsMissingError("\n".join(lines))


def _status_of(spec: ModelSpec, located: WeightsLocation) -> ModelStatus:
    """Status of a model whose weights were found."""
    paths = tuple(path for _, paths in sorted(located.files.items()) for path in paths)
    size = sum(path.stat().st_size for path in paths)
    return ModelStatus(spec.name, spec.title, True, located.source, paths, size, spec.licence, "")
