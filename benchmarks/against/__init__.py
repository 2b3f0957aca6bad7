"""Parts of `data_against_simulation.py`."""
