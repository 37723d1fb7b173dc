"""`once`: a property that is computed once, whichever and however many threads ask for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

Value = TypeVar("Value")


class once(Generic[Value]):  # noqa: N801 - used as a decorator, as functools.cached_property is
    """A method of no arguments as a property whose value is computed when it is first asked for, and kept.

    As `functools.cached_property`, but threads that ask at the same time wait for the first of them instead of
    computing the same value again. If the computation fails, the next access tries again.

    The computation must not wait for other threads that ask for the same value: neither would ever end.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__
        self._name = compute.__name__

    def __set_name__(self, owner: type, name: str) -> None:
        """Remember under which name values are kept."""
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> Value: ...

    def __get__(self, instance: object | None, owner: type | None = None) -> Self | Value:
        """The value; Python does not come here again once it lies in the object's own dictionary."""
        if instance is None:
            return self
        kept: dict[str, Any] = instance.__dict__
        # One lock for each object and property; `setdefault` is one step for all threads.
        with kept.setdefault(f"_lock_{self._name}", threading.RLock()):
            if self._name not in kept:
                kept[self._name] = self._compute(instance)
        value: Value = kept[self._name]
        return value


def known(instance: object, name: str) -> bool:
    """Whether a value was computed before."""
    return name in instance.__dict__


def forget(instance: object, name: str) -> None:
    """Delete a computed value; it is computed again at the next access."""
    instance.__dict__.pop(name, None)
