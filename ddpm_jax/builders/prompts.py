"""Prompts: the texts that images are made of, as conditions of a recipe."""

from typing import NamedTuple

import numpy as np

from ddpm_jax.builders import captions, low_res
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.core import errors
from ddpm_jax.models import text as text_lib
from ddpm_jax.text import encoding

SHOWN = 3  # prompts that a line names


class Prompts(NamedTuple):
    """The texts of the images, which take them in turn.

    Attributes:
        texts: one or several.
        are_asked: whether they were given, and not taken from what the run keeps.
        tokens: int32 [n, L].
        mask: bool [n, L].
        notes: what was left out of texts that are too long.
    """

    texts: tuple[str, ...]
    are_asked: bool
    tokens: np.ndarray
    mask: np.ndarray
    notes: tuple[str, ...]

    @property
    def condition(self) -> tuple[tuple[str, tuple], ...]:
        """The same as a recipe has it."""
        return (
            (text_lib.TOKENS, _rows(self.tokens)),
            (text_lib.MASK, _rows(self.mask)),
        )

    def summary(self) -> list[str]:
        """Return what is to be said before images are made, in a line each."""
        shown = ", ".join(encoding.shortened(text) for text in self.texts[:SHOWN])
        more = len(self.texts) - SHOWN
        shown += f" and {more:,} more" if more > 0 else ""
        if not self.are_asked:
            shown = (
                f"none given, so captions that the run keeps of its data: {shown}; "
                'give --prompt="…" for your own'
            )
        return [f"prompts: {shown}", *(f"note: {note}" for note in self.notes)]


def of(config, facts: DataInfo, given: low_res.Given | None = None) -> Prompts | None:
    """Return the prompts of the images, or None for a run that reads no text.

    Args:
        config: of the run.
        facts: of its data.
        given: what an upsampler enlarges: None is returned where its images come with
            their texts.

    Raises:
        Refusal: prompts for a run that reads none, none for a run that keeps none,
            or a text that its tokenizer cannot express.
    """
    if given is not None and text_lib.TOKENS in given.source.carried:
        return None
    asked = tuple(config.sampling.prompts)
    if not config.model.text_layers:
        if asked and not config.sampling.classifier:  # a CLIP may read them
            raise errors.Refusal(
                f"the prompt {encoding.shortened(asked[0])} on a run that reads no "
                "text: leave it out, or train one with --config=shapes_text"
            )
        return None
    tokenizer = of_run(config, facts)
    texts = asked or facts.text.captions
    if not texts:
        raise errors.Refusal(
            "this run makes images of texts and was given none: give "
            '--prompt="a corgi in a field", as often as you like, or --prompts=FILE, '
            "one a line"
        )
    return Prompts(texts, bool(asked), *encoding.encode_all(tokenizer, texts))


def check_prompted(texts: Prompts | None, given: low_res.Given | None) -> None:
    """Refuse to enlarge pictures of which nothing says what they show.

    The captions that a run keeps are of other images.

    Raises:
        Refusal: says how to give a prompt, and that it may be empty.
    """
    if None not in (texts, given) and not texts.are_asked:
        raise errors.Refusal(
            f"{given.source.name} does not say what each of its images shows: give "
            '--prompt="a red circle", one for all or several in the order of the '
            'images, or --prompt="" for no text'
        )


def check_given(config) -> None:
    """Refuse to edit a picture with a run that reads text and was given none.

    Raises:
        Refusal: says how to give one, and that it may be empty.
    """
    if config.model.text_layers and not config.sampling.prompts:
        raise errors.Refusal(
            "this run makes pictures of texts: say what the result shows with "
            '--prompt="a red circle", one for all or one for each picture, or '
            '--prompt="" for no text'
        )


def of_run(config, facts: DataInfo) -> encoding.Tokenizer:
    """Return the tokenizer of a run that reads texts.

    Raises:
        Refusal: the run has none, or it cannot be used.
    """
    if facts.text is None:
        raise errors.Refusal(
            "this run reads texts and has no tokenizer.json: import its weights again "
            "with --mode=convert"
        )
    return captions.tokenizer(config, facts)


def negative(config, facts: DataInfo) -> tuple[tuple[tuple[str, tuple], ...], str]:
    """Return the text to lead away from as a condition, () for "no text", and a note.

    The note says what was left out of a text that is too long, "" where nothing was.

    Raises:
        Refusal: a text that the tokenizer cannot express.
    """
    asked = config.sampling.negative
    if not asked:
        return (), ""
    tokens, mask, note = of_run(config, facts).encode(asked)
    condition = (
        (text_lib.TOKENS, tuple(tokens.tolist())),
        (text_lib.MASK, tuple(mask.tolist())),
    )
    return condition, note


def _rows(array) -> tuple[tuple, ...]:
    return tuple(map(tuple, array.tolist()))
