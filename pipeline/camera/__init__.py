"""Everything that knows what an air shower is: simulation, event files, cleaning, Hillas parameters, camera tiles."""
