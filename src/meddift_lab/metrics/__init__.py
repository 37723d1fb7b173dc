"""Errors of points and regularity and overlap of fields, as the challenges of the field report them."""

__all__: list[str] = []
