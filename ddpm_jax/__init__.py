"""Diffusion models in JAX at parity with the papers: 2015, DDPM, Improved DDPM, ADM.

Importing this package touches no device and imports neither TensorFlow nor torch.
"""

__version__ = "0.1.0"
