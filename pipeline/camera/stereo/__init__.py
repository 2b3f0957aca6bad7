"""Events that several telescopes saw, from the parameters of their images: numpy, many events at once."""
