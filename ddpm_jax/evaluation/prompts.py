"""Whether a run of shapes follows its prompts: requests, cards."""

import json
from typing import NamedTuple

import numpy as np

from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors
from ddpm_jax.evaluation import cards, sample_sets
from ddpm_jax.metrics import prompts, table
from ddpm_jax.runtime.console import say

READER = "shapes"  # the one source whose images are read exactly
SPLITS = {"seen": "test", "never_seen": "unseen"}  # as a card names them


class Prepared(NamedTuple):
    """Captions and real images, by what a card calls the split."""

    captions: dict[str, list[str]]
    images: dict[str, np.ndarray]


def prepare(config, facts) -> Prepared:
    """Return the captions that images are to be made of.

    Raises:
        Refusal: a run that reads no text, other data than shapes, or more images than
            there are captions.
    """
    if facts.text is None or config.data.name != READER:
        raise errors.Refusal(
            f"{table.PROMPT_ACCURACY} with data.name={config.data.name}: only images "
            "of 'shapes', and of a run that reads text, can be read exactly; for other "
            "data compare agreement by a classifier of your own"
        )
    captions, images = {}, {}
    count = config.evaluation.num_samples
    for name, split in SPLITS.items():
        dataset = build_data.dataset(config, split)
        if count > len(dataset):
            raise errors.Refusal(
                f"evaluation.num_samples={count}: there are {len(dataset)} captions in "
                f"the split {split!r}; choose 1 … {len(dataset)}"
            )
        indices = np.arange(count)
        captions[name] = dataset.captions(indices)
        images[name] = dataset.fetch(indices)["image"]
    return Prepared(captions, images)


def score(trained, prepared: Prepared, names) -> bool:
    """Write the cards of a run that are not there.

    Args:
        trained: the run, on its devices.
        prepared: from `prepare`.
        names: metrics, keys of `SCORES`.

    Returns:
        Whether to go on; False after a request to stop.
    """
    return all(_score(trained, prepared, name) for name in names if name in SCORES)


def _score(trained, prepared, name):
    config = trained.config
    weights = trained.weights(config.sampling.weights, field="sampling.weights")
    recipe = build_sampling.recipe(config, trained.facts)
    tag = f"{recipe.tag(weights)}-n{config.evaluation.num_samples}"
    tag += f"-{cards.short_hash(json.dumps(prepared.captions))}"
    path = trained.run_dir.evaluation / f"{name}_{tag}.json"
    if cards.exist(path):
        return True
    found = SCORES[name](trained, weights, prepared)
    if found is None:
        return False
    share, details = found
    cards.write(
        path,
        metric=name,
        value=share.share,
        unit="",
        standard_error=float(np.sqrt(share.share * (1 - share.share) / share.count)),
        details=details,
        protocol={
            **recipe.as_dict(weights),
            "data": config.data.name,
            "num_samples": config.evaluation.num_samples,
            "image_shape": trained.facts.shape,
            "prompts": f"captions of the splits {', '.join(SPLITS.values())}",
            "dtype": config.model.dtype,
        },
        notes=["shares of images, with Wilson's intervals of 95 %"],
    )
    say(f"card: {path}")
    return True


def _accuracy(trained, weights, prepared):
    """Return the share of seen combinations, and all shares by split."""
    details = {}
    for split, captions in prepared.captions.items():
        images = made_of(trained, weights, captions)
        if images is None:
            return None
        found = prompts.agreement(captions, images)
        _say_shares(f"{split.replace('_', ' ')} combinations", found)
        details[split] = found.to_dict()
    seen = prompts.agreement(prepared.captions["seen"], prepared.images["seen"])
    turned = [*prepared.captions["seen"][1:], prepared.captions["seen"][0]]
    floor = prompts.agreement(turned, prepared.images["seen"])
    _say_shares("real images", seen)
    _say_shares("real images, captions of others", floor)
    details |= {"real_images": seen.to_dict(), "shuffled_captions": floor.to_dict()}
    return prompts.Share(**details["seen"]["whole"]), details


def _swap(trained, weights, prepared):
    """Return the share of swapped captions that images show, and what else changed."""
    pairs = prompts.swaps(prepared.captions["seen"])
    sides = []
    for side in zip(*pairs, strict=True):
        images = made_of(trained, weights, list(side))
        if images is None:
            return None
        sides.append(images)
    found = prompts.swap_effect(pairs, *sides)
    for name, share in found.items():
        say(f"  {name:<8} {described(share)}")
    return found["asked"], {name: share._asdict() for name, share in found.items()}


SCORES = {table.PROMPT_ACCURACY: _accuracy, table.PROMPT_SWAP: _swap}


def made_of(trained, weights, captions) -> np.ndarray | None:
    """Return image i of caption i, stored as --mode=sample would; None if stopped."""
    config = trained.config.copy_and_resolve_references()
    config.sampling.prompts = tuple(captions)
    recipe = build_sampling.recipe(config, trained.facts)
    store = sample_sets.made(trained, config, recipe, weights, len(captions))
    return None if store is None else store.first(len(captions))


def described(share: prompts.Share) -> str:
    """Return "93.1 % (91.4 … 94.5 %, 1000 images)" for the terminal."""
    if share.share is None:
        return "none"
    low, middle, high = (100 * x for x in (share.low, share.share, share.high))
    return f"{middle:.1f} % ({low:.1f} … {high:.1f} %, {share.count} images)"


def _say_shares(what, found):
    say(f"{what}: {described(found.whole)}")
    for name, share in {**found.by_number, **found.by_attribute}.items():
        say(f"  {name.replace('_', ' '):<12} {described(share)}")
