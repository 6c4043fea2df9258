"""Diffusion models in JAX at parity with the papers: 2015, DDPM, Improved DDPM, ADM.

    run = ddpm_jax.load("runs/digits")
    images = run.sample(64, labels=3, seed=0)

`load`, `train` and `network` are in `ddpm_jax.api`, imported at their first use:
importing this package touches no device and imports neither JAX nor other frameworks.
"""

__version__ = "0.3.0.dev0"
__all__ = ["load", "network", "train"]


def __getattr__(name):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ddpm_jax import api

    return getattr(api, name)
