"""Lesions of one patient over time: which is which, what grew, what went, what is new."""
