"""From TOML to `ModelSpec`: strict, so that a typing error is found and not silently ignored."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from meddift.errors import ModelError
from meddift.models.spec import AUTOENCODER_OPTIONS, UNET_OPTIONS, ModelSpec


def parse_spec(text: str, *, source: str, origin: str = "") -> ModelSpec:
    """Read a model specification from TOML text.

    Args:
        text: TOML.
        source: What to call it in messages.
        origin: The user's file it comes from, "" for the catalogue.

    Raises:
        ModelError: if it is not TOML, it extends no model of the catalogue, a key is unknown or missing, a value has
            the wrong type or begins with `$` (MONAI bundles run such values as code; meddift never does), or parts
            contradict each other.
    """
    try:
        table = _with_inherited(tomllib.loads(text), source)
        _reject_expressions(table, source)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{source} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise ModelError(f"{source} is nested too deep for a specification; is it damaged?") from error
    if "origin" in table:
        raise ModelError(f"{source}: unknown key 'origin'")
    try:
        _check_keys(table.get("unet", {}), UNET_OPTIONS, f"{source}: unet")
        _check_keys(table.get("latent", {}).get("network", {}), AUTOENCODER_OPTIONS, f"{source}: latent.network")
    except AttributeError as error:
        raise ModelError(f"{source}: unet, latent and latent.network must be tables") from error
    spec: ModelSpec = _build(ModelSpec, {**table, "origin": origin}, source)
    return spec


def read_spec(path: Path) -> ModelSpec:
    """Read a user's specification file.

    Raises:
        ModelError: as `parse_spec`, or if the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"cannot read the model specification {path}: {error}") from error
    return parse_spec(text, source=str(path), origin=str(path.resolve()))


def packaged_specs() -> dict[str, str]:
    """Name of each model of the catalogue, ascending -> its specification as TOML text."""
    found = {
        entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8")
        for entry in files("meddift.models").joinpath("specs").iterdir()
        if entry.name.endswith(".toml")
    }
    return dict(sorted(found.items()))


def nearest(word: str, choices: Mapping[str, Any] | frozenset[str] | list[str]) -> str:
    """' Did you mean ...?' for the closest choice, or ''."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _with_inherited(table: dict[str, Any], source: str) -> dict[str, Any]:
    """The keys and tables of a specification, and of the one that it extends those that it does not have itself."""
    if "extends" not in table:
        return table
    own = {key: value for key, value in table.items() if key != "extends"}
    name, known = table["extends"], packaged_specs()
    if not isinstance(name, str) or name not in known:
        raise ModelError(
            f"{source}: extends must name a model of the catalogue, got {name!r}.{nearest(str(name), list(known))}"
        )
    return {**_with_inherited(tomllib.loads(known[name]), name), **own}


def _reject_expressions(value: Any, where: str) -> None:
    """Raise if any string inside begins with `$`."""
    if isinstance(value, str) and value.startswith("$"):
        raise ModelError(f"{where}: {value!r} begins with '$'; specifications hold values, never expressions")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _reject_expressions(key, where)
            _reject_expressions(inner, where)
    elif isinstance(value, list):
        for inner in value:
            _reject_expressions(inner, where)


def _check_keys(table: Mapping[str, Any], known: frozenset[str], where: str) -> None:
    """Raise at the first key that is not known."""
    for key in table.keys() - known:
        raise ModelError(f"{where}: unknown key {key!r}.{nearest(key, known)}")


def _build(kind: Any, table: Any, where: str) -> Any:
    """A dataclass from a table of its fields."""
    if not isinstance(table, Mapping):
        raise ModelError(f"{where} must be a table, got {table!r}")
    hints = get_type_hints(kind)
    _check_keys(table, frozenset(hints), where)
    values = {}
    for entry in fields(kind):
        if entry.name in table:
            values[entry.name] = _convert(table[entry.name], hints[entry.name], f"{where}: {entry.name}")
        elif entry.default is MISSING and entry.default_factory is MISSING:
            raise ModelError(f"{where}: {entry.name!r} is missing")
    try:
        return kind(**values)
    except ModelError as error:
        # Say once which file and table it was.
        raise ModelError(str(error) if str(error).startswith(where.split(":")[0]) else f"{where}: {error}") from error


def _convert(value: Any, hint: Any, where: str) -> Any:
    """A TOML value as the type that a field wants."""
    kind = get_origin(hint) or hint
    if is_dataclass(hint):
        return _build(hint, value, where)
    if kind is Literal:
        if value not in get_args(hint):
            choices = [str(choice) for choice in get_args(hint)]
            raise ModelError(
                f"{where} must be one of {', '.join(choices)}; got {value!r}.{nearest(str(value), choices)}"
            )
        return value
    if kind is tuple and isinstance(value, list):
        inner = get_args(hint)
        if inner[-1] is Ellipsis:
            return tuple(_convert(item, inner[0], f"{where}[{i}]") for i, item in enumerate(value))
        if len(value) == len(inner):
            return tuple(_convert(item, inner[i], f"{where}[{i}]") for i, item in enumerate(value))
    if kind is Mapping and isinstance(value, Mapping):
        inner_hint = get_args(hint)[1]
        return {key: _convert(item, inner_hint, f"{where}.{key}") for key, item in value.items()}
    if hint is Any:
        return tuple(value) if isinstance(value, list) else value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise ModelError(f"{where} has the wrong type: {value!r}")
