"""Parts of `benchmarks/damaged_files.py`: good files, ways to damage them, and a harness that runs the commands."""
