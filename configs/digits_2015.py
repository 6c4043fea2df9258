"""Handwritten digits, 8×8, by the Gaussian diffusion of the 2015 paper.

    python -m ddpm_jax.main --config=configs/digits_2015.py
    python -m ddpm_jax.main --mode=evaluate --workdir=runs/digits_2015
    python -m ddpm_jax.main --mode=sample --workdir=runs/digits_2015

Numbers: as deadleaves_2015.py, with the dense pathway, for digits lie in the middle;
mean and deviation are those of the training images. The paper's digits are MNIST's, of
28×28, and its number is of another estimator. Result to expect: docs/paper_2015.md.
"""

import deadleaves_2015  # configs/deadleaves_2015.py


def get_config():
    """Return the configuration of deadleaves_2015.py with digits."""
    config = deadleaves_2015.get_config()
    config.data.name = "digits"
    config.model.dense_channels = 4
    config.model.scales = 1
    config.diffusion.data_mean = -0.3891
    config.diffusion.data_std = 0.7520
    config.evaluation.batch_size = 60
    return config
