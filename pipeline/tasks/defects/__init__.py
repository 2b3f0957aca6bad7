"""Which pixels of a sky frame are spoiled, and by what."""
