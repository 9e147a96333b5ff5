"""The benchmark: what is measured, on whom, with which load, and what it shows. `bench/run.py` is its command."""
