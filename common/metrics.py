"""What the assignment's section 3.3.2 evaluates a training by, computed from its history."""

import math

import numpy as np

WINDOW = 100  # batches of a moving average


def window_means(values: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Average consecutive windows, without an incomplete last one: (N,) -> (N // window,)."""
    return windows(values, window).mean(1)


def windows(values: np.ndarray, window: int = WINDOW) -> np.ndarray:
    """Cut values into consecutive windows, without an incomplete last one: (N,) -> (N // window, window), float64."""
    return values[: len(values) // window * window].astype(float).reshape(-1, window)


def roughness(batch_losses: np.ndarray, window: int = WINDOW) -> float:
    """Return how far the moving average of the training loss moves per `window` batches, in nats: 0 is smooth.

    It is the mean absolute difference of the means of consecutive windows of the losses (steps,). A steady fall adds
    little to it, because it is spread over hundreds of windows. NaN where there are fewer than two windows.
    """
    means = window_means(batch_losses, window)
    return float(np.abs(np.diff(means)).mean()) if len(means) > 1 else math.nan


def epochs_to_reach(accuracies: np.ndarray, target: float) -> float:
    """Return the first epoch, from 1, whose accuracy (epochs,) is at least `target`; infinity where none is."""
    reached = np.flatnonzero(np.asarray(accuracies) >= target)
    return float(reached[0] + 1) if len(reached) else math.inf
