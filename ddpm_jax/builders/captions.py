"""Captions of the data as a run reads them: its tokenizer, and the file that holds it.

    tokenizer.json    {"tokenizer": …, "captions": [some of the training data]}

config.json has the fingerprint of the tokenizer alone: a vocabulary has many words.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence

from ddpm_jax.builders import data as build_data
from ddpm_jax.builders.data import DataInfo, TextFacts
from ddpm_jax.core import arrays, errors
from ddpm_jax.data import captions_classes
from ddpm_jax.data import dataset as dataset_lib
from ddpm_jax.models import text as text_lib
from ddpm_jax.runs import directory
from ddpm_jax.runtime import console
from ddpm_jax.text import encoding, tokenizers

KEPT = 64  # captions of the training data that a run keeps
CHECKED = 1_000  # captions of a new run, whether they fit into the context


def check(config, dataset: dataset_lib.Dataset) -> None:
    """Refuse data whose captions a network cannot be trained on.

    Raises:
        Refusal: no captions, or images that are mirrored while captions tell left from
            right.
    """
    if not config.model.text_layers:
        return
    if dataset.read_captions is None:
        raise errors.Refusal(
            f"model.text_layers={config.model.text_layers}: the images of "
            f"{dataset.name!r} have no captions; put a text beside each image "
            "(photo.png, photo.txt), set data.captions=classes for the names of "
            "classes, choose data.name=shapes, or set model.text_layers=0"
        )
    if config.data.flip and not captions_classes.is_template(config.data.captions):
        raise errors.Refusal(
            "data.flip=True mirrors images, and a caption that says left or right is "
            "wrong then: set data.flip=False"
        )


def with_text(config, facts: DataInfo, dataset: dataset_lib.Dataset) -> DataInfo:
    """Return the facts of a new run with its tokenizer and some captions.

    Args:
        config: of the run.
        facts: of its data.
        dataset: the training split.

    Raises:
        Refusal: as `check`, or a tokenizer that cannot be made.
    """
    check(config, dataset)
    if not config.model.text_layers:
        return facts
    made_of = made(config, dataset)
    _say_what_is_cut(made_of, dataset.captions(arrays.spread(len(dataset), CHECKED)))
    kept = tuple(dataset.captions(arrays.spread(len(dataset), KEPT)))
    return dataclasses.replace(facts, text=TextFacts(made_of.to_json(), kept))


def made(config, dataset: dataset_lib.Dataset) -> encoding.Tokenizer:
    """Return the tokenizer that a config asks for, made of the captions of data.

    Raises:
        Refusal: a tokenizer that cannot be made.
    """
    return tokenizers.make(
        config.data.tokenizer,
        captions=dataset.all_captions(),
        context=config.model.text_context or None,
        path=config.data.vocabulary,
    )


def _say_what_is_cut(tokenizer, texts):
    cut = encoding.cut(tokenizer, texts)
    if cut:
        console.say(
            f"warning: {len(cut):,} of {len(texts):,} captions that were read "
            f"have more than {tokenizer.context} tokens and lose their end; see "
            "--mode=data, and model.text_context"
        )


def of_training(config, saved) -> tuple[dataset_lib.Dataset, DataInfo]:
    """Return the training data, its captions encoded, and the facts of the run.

    A run that is gone on with keeps the tokenizer that it began with.

    Args:
        config: of the run.
        saved: what config.json says of a run that exists; None for a new one.

    Raises:
        Refusal: as `check` and `tokenizer`.
    """
    dataset = build_data.dataset(config, "train")
    facts = DataInfo.of(dataset)
    if saved is None:
        facts = with_text(config, facts, dataset)
    else:
        facts = dataclasses.replace(facts, text=saved.facts.text)
    return encoding_captions(config, facts, dataset), facts


def tokenizer(config, facts: DataInfo) -> encoding.Tokenizer:
    """Return the tokenizer of a run that reads texts.

    Raises:
        Refusal: its record or its vocabulary's files cannot be used.
    """
    return tokenizers.from_json(facts.text.tokenizer, config.data.vocabulary)


def encoded(tokenizer: encoding.Tokenizer, texts: Sequence[str]) -> dict:
    """Return texts as a network reads them.

    Returns:
        {"tokens": int32 [n, L], "token_mask": bool [n, L]}.

    Raises:
        Refusal: a text that the tokenizer cannot express.
    """
    tokens, mask, _ = encoding.encode_all(tokenizer, texts)
    return {text_lib.TOKENS: tokens, text_lib.MASK: mask}


def encoding_captions(
    config, facts: DataInfo, dataset: dataset_lib.Dataset
) -> dataset_lib.Dataset:
    """Return a data set whose examples come with the tokens of their captions.

    The data set itself is returned for a run that reads no text.

    Raises:
        Refusal: as `check` and `tokenizer`.
    """
    if facts.text is None:
        return dataset
    check(config, dataset)
    made = tokenizer(config, facts)
    return dataclasses.replace(dataset, encode=lambda texts: encoded(made, texts))


def dataset(config, facts: DataInfo, split: str, **options) -> dataset_lib.Dataset:
    """Return a split of the configured data as the network of a run reads it.

    Args:
        config: of the run.
        facts: of its data.
        split: "train" or "test", or another one of the source.
        options: see `data.dataset`.

    Raises:
        Refusal: data that cannot be used as asked.
    """
    return encoding_captions(
        config, facts, build_data.dataset(config, split, **options)
    )


def test_split(config, facts: DataInfo) -> dataset_lib.Dataset:
    """Return the test split of a run, the same on all processes.

    Raises:
        Refusal: none, or other data than the network takes.
    """
    split = dataset(config, facts, "test")
    build_data.check_images(split, facts)
    build_data.check_alike(split)
    return split


# ---- on disk -------------------------------------------------------------------------


def write(run_dir: directory.RunDir, facts: DataInfo) -> dict:
    """Write tokenizer.json of a run that reads texts; return what config.json has."""
    stored = dataclasses.asdict(facts)
    kept = stored.pop("text")
    if kept is not None:
        run_dir.write_json(run_dir.tokenizer, kept)
        stored["tokenizer"] = encoding.fingerprint(kept["tokenizer"])
    return stored


def read(run_dir: directory.RunDir, stored: Mapping) -> DataInfo:
    """Return the facts of the data of a run.

    Args:
        run_dir: the run.
        stored: "data" of its config.json.

    Raises:
        Refusal: its tokenizer.json is missing, damaged or another one.
    """
    facts = DataInfo.from_dict(stored)
    if "tokenizer" not in stored:
        return facts
    kept = _read(run_dir.tokenizer, stored["tokenizer"])
    text = TextFacts(kept["tokenizer"], tuple(map(str, kept["captions"])))
    return dataclasses.replace(facts, text=text)


def _read(path, fingerprint) -> dict:
    remedy = "restore it from a copy of the run, whose weights mean nothing without it"
    try:
        kept = json.loads(path.read_bytes())
        is_whole = isinstance(kept["tokenizer"], dict) and isinstance(
            kept["captions"], list
        )
    except OSError as error:
        raise errors.Refusal(
            f"{path} cannot be read ({error.strerror}): {remedy}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise errors.Refusal(f"{path} is damaged ({error}): {remedy}") from error
    if not is_whole or encoding.fingerprint(kept["tokenizer"]) != fingerprint:
        raise errors.Refusal(
            f"{path} is not the tokenizer that this run was trained with: {remedy}"
        )
    return kept
