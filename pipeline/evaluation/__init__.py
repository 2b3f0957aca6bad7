"""Performance of a bundle compared with its baselines: arrays in, `Result` out."""
