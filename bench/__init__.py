"""Benchmarks: the product beside the raw limit of the machine. `python -m bench`."""
