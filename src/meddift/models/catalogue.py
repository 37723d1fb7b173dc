"""The models that meddift knows by name."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from meddift.errors import ModelError
from meddift.models.spec import ModelSpec
from meddift.models.spec_reader import nearest, packaged_specs, parse_spec, read_spec


def catalogue() -> dict[str, ModelSpec]:
    """All models known by name, `builtin` first."""
    return dict(_catalogue())


def find_spec(name_or_path: str | Path) -> ModelSpec:
    """The specification of a model by its name, or from a user's TOML file.

    Args:
        name_or_path: A name of the catalogue, or a path that ends in `.toml`.

    Raises:
        ModelError: if there is no such model, or the file is not a valid specification.
    """
    known = _catalogue()
    name = str(name_or_path)
    if name in known:
        return known[name]
    if name.endswith(".toml"):
        spec = read_spec(Path(name_or_path))
        if spec.name in known:
            raise ModelError(
                f"{name}: the name {spec.name!r} belongs to a model of the catalogue; give it another one"
            )
        return spec
    raise ModelError(
        f"there is no model {name!r}.{nearest(name, known)} Known models: {', '.join(known)}; "
        "or give the path of a specification file that ends in .toml"
    )


@cache
def _catalogue() -> dict[str, ModelSpec]:
    """Parse the packaged files once."""
    return {name: parse_spec(text, source=f"{name}.toml") for name, text in packaged_specs().items()}
