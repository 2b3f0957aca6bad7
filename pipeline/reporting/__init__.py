"""What the report of a run is made of: `collect` reads the run's folder, `words` turns numbers into text."""
