"""Camera images from a network, in place of simulated ones."""
