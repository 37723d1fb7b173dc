"""Running methods on cases, each in a process of its own, and collecting their results."""

__all__: list[str] = []
