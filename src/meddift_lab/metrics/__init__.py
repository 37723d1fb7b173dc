"""Metrics of registration as challenges report them: point errors, field regularity and label overlap."""

__all__: list[str] = []
