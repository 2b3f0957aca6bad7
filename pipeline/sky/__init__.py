"""Everything that knows what a FITS sky frame is: reading, simulating, tiling, restoring and judging it."""
