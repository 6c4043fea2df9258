"""GLIDE's noised CLIP as a run: its network, and texts as it reads them."""

from ddpm_jax.builders.data import DataInfo
from ddpm_jax.core import errors
from ddpm_jax.models import clip, functional


def network(config, facts: DataInfo) -> functional.Network:
    """Return the network of model.kind "clip".

    Raises:
        Refusal: images that are not square and in colour, or sizes that do not fit.
    """
    model = config.model
    if facts.shape != (facts.shape[0], facts.shape[0], clip.CHANNELS):
        raise errors.Refusal(
            f"model.kind='clip' reads square images in colour, not {list(facts.shape)}:"
            " give data.image_size and data.channels of its files"
        )
    heads = model.num_heads
    if model.head_channels:
        heads = model.channels // model.head_channels
    return clip.clip(
        clip.Clip(
            image_size=facts.shape[0],
            patch_size=model.patch_size,
            image_width=model.channels,
            image_layers=model.image_layers,
            image_heads=heads,
            timesteps=config.diffusion.num_steps,
            text_width=model.text_width,
            text_layers=model.text_layers,
            text_heads=model.text_heads,
            context=model.text_context,
            vocabulary=model.text_vocabulary,
            embedding=model.embedding,
        )
    )
