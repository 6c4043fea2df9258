"""A Gaussian of full covariance, the simplest density to compare images with."""

import numpy as np

RIDGE = 1e-6  # of the mean variance, added to every one


def log_likelihoods(fitted, scored) -> np.ndarray:
    """Return the log-density of examples under a Gaussian fitted to others, in nats.

    Args:
        fitted: float64 [m, ...]; mean and covariance (divided by m) are taken of them.
        scored: float64 [n, ...].

    Returns:
        float64 [n].
    """
    fitted = fitted.reshape(len(fitted), -1)
    mean = fitted.mean(axis=0)
    centred = fitted - mean
    covariance = centred.T @ centred / len(fitted)
    size = len(mean)
    covariance += RIDGE * np.trace(covariance) / size * np.eye(size)
    root = np.linalg.cholesky(covariance)
    white = np.linalg.solve(root, (scored.reshape(len(scored), -1) - mean).T)
    log_determinant = 2 * np.log(np.diag(root)).sum()
    squares = np.square(white).sum(axis=0)
    return -0.5 * (squares + log_determinant + size * np.log(2 * np.pi))
