"""Option groups: a dataclass whose fields are options, used as one parameter by every command that has them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

Command = TypeVar("Command", bound=Callable[..., Any])


def with_groups(command: Command) -> Command:
    """Give a command the options of its groups.

    A parameter whose annotation is a dataclass is replaced by the fields of that dataclass, each of them an
    `Annotated` option with its default. When the command is called, the values are collected into one instance.

    Args:
        command: A function as Typer takes it. Groups are keyword parameters.

    Returns:
        The same function with a flat signature.
    """
    signature = inspect.signature(command, eval_str=True)
    plain: list[inspect.Parameter] = []
    groups: dict[str, type[Any]] = {}
    for parameter in signature.parameters.values():
        if isinstance(parameter.annotation, type) and is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            plain += _options_of(parameter.annotation)
        else:
            plain.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        for name, group in groups.items():
            chosen = {field.name: values.pop(field.name) for field in fields(group)}
            values[name] = group(**chosen)
        return command(**values)

    flat = signature.replace(parameters=plain)
    run.__signature__ = flat  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in plain}
    # Typer would otherwise look through to the function with the groups.
    del run.__wrapped__
    return run  # type: ignore[return-value]


def _options_of(group: type[Any]) -> list[inspect.Parameter]:
    """The fields of a group as keyword parameters."""
    kinds = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=kinds[field.name],
        )
        for field in fields(group)
    ]
