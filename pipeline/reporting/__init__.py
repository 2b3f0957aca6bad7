"""The report of a run: `collect` reads the run's folder, `words` turns numbers into text."""
