"""Populations of training frames whose ranges are known."""

import numpy as np

from pipeline.inputs.population import Population, TrainedRange


def population(n_frames: int = 50, limit: float = 3 + 3**0.5, **ranges: tuple[float, float]) -> Population:
    """Quantity = (low, high), spread evenly and independently of the others.

    A value beyond a range by more than its margin is unlike training.
    """
    trained = tuple(
        TrainedRange(name=name, mean=(low + high) / 2, low=low, high=high) for name, (low, high) in ranges.items()
    )
    variances = [((high - low) ** 2) / 12 for low, high in ranges.values()]
    covariance = tuple(tuple(float(value) for value in row) for row in np.diag(variances))
    return Population(ranges=trained, covariance=covariance, n_frames=n_frames, limit=limit)
