"""Reading weights files without ever running code that they contain."""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import torch

from meddift.errors import WeightsCorruptError, WeightsMissingError
from meddift.models.monai_import import metatensor_classes

#: Keys under which published files nest their tensors.
_NESTED = (
    "unet_state_dict",
    "autoencoder_state_dict",
    "controlnet_state_dict",
    "state_dict",
    "model_state_dict",
    "model",
)

#: Prefixes that training wrappers (distributed data parallel, compile) put before every name.
_WRAPPERS = ("module.", "_orig_mod.")

#: Beginning of the text files that a repository cloned without Git LFS holds in place of large files.
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class Checkpoint:
    """What a weights file holds.

    Attributes:
        tensors: Name -> plain tensor on the CPU, in today's names.
        scale_factor: The latent scale stored beside the tensors, None if there is none.
        nested_in: Key under which the tensors were nested, "" if they were not.
    """

    tensors: Mapping[str, torch.Tensor]
    scale_factor: float | None
    nested_in: str = ""


def read_checkpoint(paths: Sequence[Path]) -> Checkpoint:
    """Read one weights file, or the parts of one.

    Pickled files (`.pt`, `.pth`, `.ckpt`) are read with torch's restricted unpickler, which builds tensors and
    MONAI's MetaTensor and nothing else; `.safetensors` cannot hold code.

    Args:
        paths: The file, or its parts in order.

    Returns:
        Tensors in today's names of MONAI's networks.

    Raises:
        WeightsMissingError: if a file cannot be opened.
        WeightsCorruptError: if a file is damaged, holds anything but tensors and plain values, or is no
            weights file.
    """
    tensors: dict[str, torch.Tensor] = {}
    scale_factor: float | None = None
    nested_in = ""
    for path in paths:
        part = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
        twice = tensors.keys() & part.tensors.keys()
        if twice:
            raise WeightsCorruptError(f"{path} repeats {len(twice)} tensors of another part, such as {min(twice)!r}")
        tensors.update(part.tensors)
        scale_factor = part.scale_factor if scale_factor is None else scale_factor
        nested_in = nested_in or part.nested_in
    return Checkpoint(todays_names(tensors), scale_factor, nested_in)


def todays_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors under the names that MONAI >= 1.5 uses.

    Removes the prefixes of training wrappers and translates the names from before August 2024: U-Net
    attention (`to_q` -> `attn.to_q`, `proj_attn` -> `attn.out_proj`), upsamplers (`conv` -> `postconv`),
    and the convolutions of the autoencoder (`conv.weight` -> `conv.conv.weight`).
    """
    names = {name: name for name in tensors}
    for _ in _WRAPPERS:
        for prefix in _WRAPPERS:
            if names and all(new.startswith(prefix) for new in names.values()):
                names = {old: new.removeprefix(prefix) for old, new in names.items()}
    single_convolution = "encoder.blocks.0.conv.weight" in names.values()

    def translate(name: str) -> str:
        name = re.sub(r"(attentions\.\d+|\.attention)\.(to_[qkv])\.", r"\1.attn.\2.", name)
        name = re.sub(r"(attentions\.\d+|\.attention)\.proj_attn\.", r"\1.attn.out_proj.", name)
        name = name.replace("upsampler.conv.", "upsampler.postconv.")
        if single_convolution and name.startswith(("encoder.", "decoder.")):
            name = re.sub(r"(conv\d?|nin_shortcut)\.conv\.(weight|bias)$", r"\1.conv.conv.\2", name)
            name = re.sub(r"^((?:en|de)coder\.blocks\.\d+)\.conv\.(weight|bias)$", r"\1.conv.conv.\2", name)
        return name

    return {translate(new): tensors[old] for old, new in names.items()}


def checked_scale_factor(value: Any, path: Path) -> float:
    """A latent scale as a plain number.

    Raises:
        WeightsCorruptError: if it is not one finite number above 0.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsCorruptError(f"{path}: its scale_factor is not one number") from error
    if not (math.isfinite(number) and number > 0):
        raise WeightsCorruptError(f"{path}: its scale_factor is {number}, but must be a finite number above 0")
    return number


def _read_safetensors(path: Path) -> Checkpoint:
    """Tensors of a safetensors file, and the scale factor in its metadata."""
    from safetensors import SafetensorError, safe_open

    _check_readable(path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            metadata = file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsCorruptError(f"{path} is not a complete safetensors file ({error}); fetch it again") from error
    scale = metadata.get("scale_factor")
    return Checkpoint(tensors, None if scale is None else checked_scale_factor(scale, path))


def _read_pickle(path: Path) -> Checkpoint:
    """Tensors of a file that torch.save wrote."""
    _check_readable(path)
    zipped = zipfile.is_zipfile(path)
    if zipped:
        _check_archive(path)
    try:
        with torch.serialization.safe_globals(
            [*metatensor_classes(), *_inert_classes(), (_enum_member, "builtins.getattr")]
        ):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise WeightsCorruptError(
                f"{path} holds more than weights: it asks for {refused.group(1)}, which could run code. "
                "It was not loaded; get the file from its publisher"
            ) from error
        raise WeightsCorruptError(f"{path} is damaged, or not a weights file; fetch it again") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise WeightsCorruptError(f"{path} is damaged, or not a weights file ({_first_line(error)})") from error
    return _unwrapped(content, path)


class _Inert:
    """Placeholder for an object in a file that is not needed: accepts any arguments and does nothing."""

    def __init__(self, *_arguments: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...


def _enum_member(kind: Any, name: Any) -> Any:
    """What Python 3.11.0 to 3.11.3 write for a member of an enum, `getattr(class, name)`; it finds nothing else."""
    if isinstance(kind, type) and issubclass(kind, Enum) and name in kind.__members__:
        return kind[name]
    raise pickle.UnpicklingError("GLOBAL getattr")


@cache
def _inert_classes() -> tuple[type[_Inert], ...]:
    """Stand-ins for the NumPy parts of an image header that a pickled MetaTensor may carry.

    The restricted unpickler finds a class by its module and name, so that each stand-in bears those of what
    it replaces. NumPy itself is not let in: its arrays may hold arbitrary objects.
    """
    names = [f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")]
    names += ["numpy.ndarray", "numpy.dtype"]
    split = [name.rpartition(".") for name in names]
    return tuple(type(name, (_Inert,), {"__module__": module, "__qualname__": name}) for module, _, name in split)


def _unwrapped(content: Any, path: Path) -> Checkpoint:
    """Tensors and scale factor out of a file's content."""
    if not isinstance(content, Mapping):
        raise WeightsCorruptError(f"{path} holds a {type(content).__name__}, not weights by name")
    scale = content.get("scale_factor")
    nested_in = next((key for key in _NESTED if isinstance(content.get(key), Mapping)), "")
    inner = content[nested_in] if nested_in else content
    tensors = {}
    for name, value in inner.items():
        if isinstance(value, torch.Tensor):
            # A MetaTensor would make every later result a MetaTensor.
            tensors[str(name)] = value.detach().as_subclass(torch.Tensor)
        elif nested_in:
            raise WeightsCorruptError(f"{path}: {name!r} is a {type(value).__name__}, not a tensor")
    tensors.pop("scale_factor", None)
    if not tensors:
        raise WeightsCorruptError(f"{path} holds no weights")
    return Checkpoint(tensors, None if scale is None else checked_scale_factor(scale, path), nested_in)


def _check_readable(path: Path) -> None:
    """Say plainly if a file cannot be opened or is empty."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(_LFS_POINTER))
    except OSError as error:
        raise WeightsMissingError(f"cannot open {path}: {error.strerror or error}") from error
    if not begin:
        raise WeightsCorruptError(f"{path} is empty; fetch it again")
    if begin == _LFS_POINTER:
        raise WeightsCorruptError(f"{path} is a Git LFS pointer and not the file itself; run `git lfs pull` there")


def _check_archive(path: Path) -> None:
    """Compare the checksums inside a file of torch.save with its content: finds flipped bits and cut ends."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise WeightsCorruptError(f"{path} is damaged ({_first_line(error)}); fetch it again") from error
    if bad is not None:
        raise WeightsCorruptError(f"{path} is damaged: the checksum of {bad!r} inside it is wrong; fetch it again")


def _first_line(error: BaseException) -> str:
    """The first line of an error's message, shortened."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]
