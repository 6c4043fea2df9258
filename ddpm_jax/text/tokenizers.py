"""The choice of a tokenizer, and its record in a run."""

from collections.abc import Iterable, Mapping

from ddpm_jax.core import errors
from ddpm_jax.text import encoding, gpt2, pairs, utf8, words

KINDS = ("words", "bytes", "gpt2")


def make(
    kind: str,
    *,
    captions: Iterable[str] = (),
    context: int | None = None,
    path: str = "",
) -> encoding.Tokenizer:
    """Return a tokenizer.

    Args:
        kind: one of `KINDS`.
        captions: of the training data, for "words": their words are the vocabulary.
        context: length of encoded texts; None is 128, and for "words" the longest of
            the captions.
        path: for "gpt2", the folder of its two files; "" takes the installed ones.

    Raises:
        Refusal: an unknown kind, a context below 1, captions without words, or files
            that are not there or not the published ones.
    """
    if kind == "words":
        return words.from_captions(captions, context)
    context = gpt2.CONTEXT if context is None else context
    if kind == "bytes":
        return utf8.Bytes(context)
    if kind == "gpt2":
        return gpt2.GPT2(pairs.published(path), context)
    raise errors.Refusal(
        f"unknown tokenizer {kind!r}: choose one of {', '.join(KINDS)}"
    )


def from_json(record: Mapping, path: str = "") -> encoding.Tokenizer:
    """Return the tokenizer that `to_json` described.

    Args:
        record: what `to_json` returned, perhaps read from a file.
        path: for "gpt2", as in `make`.

    Raises:
        Refusal: the record describes no tokenizer of this version, or as in `make`.
    """
    return _of_record(record, lambda: pairs.published(path))


def without_files(record: Mapping) -> encoding.Tokenizer:
    """Return a tokenizer whose sizes can be asked for: no vocabulary file is read.

    Args:
        record: as in `from_json`.

    Raises:
        Refusal: the record describes no tokenizer of this version.
    """
    return _of_record(record, lambda: pairs.NOTHING)


def described(record: Mapping | None) -> str:
    """Return what a tokenizer is, in words: its kind and what tells it from others.

    Args:
        record: as in `from_json`; None for none.
    """
    if record is None:
        return "no known tokenizer"
    made = without_files(record)
    return (
        f"the tokenizer {made.kind!r} of {made.vocabulary_size:,} tokens and "
        f"{made.context} positions ({made.fingerprint[:8]})"
    )


def _of_record(record, vocabulary):
    kind, context = record.get("kind"), record.get("context")
    if kind == "words" and isinstance(record.get("words"), list | tuple):
        tokenizer = words.Words(tuple(map(str, record["words"])), context)
    elif kind == "bytes" and context is not None:
        tokenizer = utf8.Bytes(context)
    elif kind == "gpt2" and context is not None:
        tokenizer = gpt2.GPT2(vocabulary(), context)
    else:
        tokenizer = None
    if tokenizer is None or tokenizer.to_json() != dict(record):
        raise errors.Refusal(
            f"{encoding.shortened(str(dict(record)))} describes no tokenizer that this "
            f"version knows ({', '.join(KINDS)}): restore the run's own record, or use "
            "the version that wrote it"
        )
    return tokenizer
