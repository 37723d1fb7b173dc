"""Pages of reports: text that comes from files can be neither markup nor control characters in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from meddift.system.text import printable


def render_page(
    package: str, values: Mapping[str, Any], *, filters: Mapping[str, Callable[..., Any]] | None = None
) -> str:
    """Fill in the template `page.html.j2` of a package.

    Args:
        package: Its dotted name.
        values: By their names in the template. Texts are escaped, and what cannot be seen is written out.
        filters: Further filters by name.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, finalize=_shown
    )
    environment.filters |= filters or {}
    template = resources.files(package).joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render(values)


def _shown(value: Any) -> Any:
    """A text without what cannot be seen; drawings are markup of our own already."""
    return printable(value) if type(value) is str else value
