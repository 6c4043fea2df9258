"""Refusals of the layers below, told with the config field they come from."""

import contextlib

from ddpm_jax.core import errors


@contextlib.contextmanager
def about(field):
    """Put the name of a config field before what a layer below refuses."""
    try:
        yield
    except errors.Refusal as refusal:
        raise errors.Refusal(f"{field}: {refusal}") from refusal
