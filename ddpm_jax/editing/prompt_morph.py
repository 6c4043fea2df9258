"""From text to text at fixed noise: the conditions of the frames of a morph."""

from fractions import Fraction

from ddpm_jax.builders import prompts
from ddpm_jax.core import errors
from ddpm_jax.editing import ends
from ddpm_jax.sampling import recipe as recipe_lib

SHOWN = 40  # characters of a text below a frame


def texts_of(config, facts) -> prompts.Prompts:
    """Return the texts that a morph passes, in order.

    Raises:
        Refusal: fewer than two, neighbours between which nothing changes, or another
            run that guides, which is told of one text alone.
    """
    for field in ("classifier", "weaker"):
        if config.sampling[field]:
            raise errors.Refusal(
                f"sampling.{field}={config.sampling[field]} with --kind=morph: a "
                f"morph mixes two texts, and no other run can guide it; leave it empty"
            )
    found = prompts.of(config, facts)
    texts = found.texts
    if not found.are_asked or any(
        a == b for a, b in zip(texts, (*texts[1:], texts[0]), strict=True)
    ):
        raise errors.Refusal(
            f"--kind=morph passes the prompts {list(config.sampling.prompts)} and goes "
            'back to the first: give two or more, such as --prompt="a red circle" '
            '--prompt="a blue circle", neighbours different'
        )
    return found


def between(
    recipe: recipe_lib.Recipe,
    texts: prompts.Prompts,
    one: int,
    other: int,
    share: Fraction,
) -> recipe_lib.Recipe:
    """Return the recipe of images between two texts.

    What the network says is (1−λ) of what it says of text `one` and λ of what it says
    of text `other`, each guided. At λ = 0 and 1 the images are those of the text.

    Args:
        recipe: of the run.
        texts: from `texts_of`.
        one, other: numbers of the two texts.
        share: λ.
    """
    of_texts = {key: (rows[one], rows[other]) for key, rows in texts.condition}
    return ends.mixed(recipe, of_texts, (share,), tuple(of_texts))


def caption(texts: prompts.Prompts, one: int, other: int, share: Fraction) -> str:
    """Return what stands below a frame."""
    names = [_named(texts.texts[number]) for number in (one, other)]
    if not share:
        return names[0]
    return f"{float(share):.0%} of the way from {names[0]} to {names[1]}"


def _named(text):
    text = text or "no text"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
