"""Training: the only place that knows lightning. What an objective is; tasks implement it."""
