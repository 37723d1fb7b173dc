"""What the operating system gives. Files written whole, memory, threads, devices, names loaded late."""

__all__: list[str] = []
