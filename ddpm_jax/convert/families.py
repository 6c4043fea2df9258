"""The codes whose files are understood, by the name that `open.Source` gives them."""

from collections.abc import Mapping

from ddpm_jax.convert import mapping
from ddpm_jax.convert.formats import clip, ddpm, diffusers, native, openai
from ddpm_jax.core import errors

FAMILIES = {
    "openai": openai,
    "diffusers": diffusers,
    "ho": ddpm,
    "clip": clip,
    "ddpm_jax": native,
}


def entries(
    family: str,
    our_shapes: Mapping[str, tuple[int, ...]],
    fields: Mapping[str, object],
) -> list[mapping.Entry]:
    """Return where each of our parameters stands in a file of a family.

    Args:
        family: a key of `FAMILIES`.
        our_shapes: shape of every parameter by path.
        fields: those of `recognise.Recognised`.
    """
    module = errors.choose("family of weights", FAMILIES, family)
    return module.entries(our_shapes, fields)
