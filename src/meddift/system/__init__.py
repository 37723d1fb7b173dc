"""Services of the operating system: atomic files, memory limits, threads, devices and lazy imports."""

__all__: list[str] = []
