"""GLIDE's noised CLIP as a run: its network, and texts as it reads them."""

from collections.abc import Sequence

from ddpm_jax.builders.data import DataInfo
from ddpm_jax.core import errors
from ddpm_jax.models import clip, functional
from ddpm_jax.text import clip as tokens_lib


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


def condition(config, texts: Sequence[str]) -> tuple[tuple[str, tuple], ...]:
    """Return texts as a recipe has them for the network to read.

    Args:
        config: of the run with CLIP.
        texts: those of the images, which take them in turn.

    Raises:
        Refusal: no texts, one that cannot be expressed, or no vocabulary.
    """
    if not texts:
        raise errors.Refusal(
            "sampling.classifier names a CLIP, which guides to a text, and there is "
            'none: give --prompt="a corgi in a field", or leave sampling.classifier '
            "empty"
        )
    tokens, lengths, _ = _encoded(config, texts)
    return (
        (clip.TOKENS, tuple(map(tuple, tokens.tolist()))),
        (clip.LENGTH, tuple(lengths.tolist())),
    )


def notes(config, texts: Sequence[str]) -> tuple[str, ...]:
    """Return what CLIP does not read of texts that are too long for it, in words."""
    return _encoded(config, texts)[2]


def _encoded(config, texts):
    vocabulary = tokens_lib.published(config.data.vocabulary)
    tokens = config.model.text_vocabulary
    if vocabulary.end >= tokens:
        raise errors.Refusal(
            f"this CLIP knows {tokens} tokens and its vocabulary has "
            f"{vocabulary.end + 1:,}: it takes tokens, from Python, and no prompts"
        )
    return tokens_lib.batch(vocabulary, texts, config.model.text_context)
