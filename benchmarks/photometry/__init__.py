"""What a bundle for sky frames does to stars, galaxies, noise and defects, as a photometrist measures it."""
