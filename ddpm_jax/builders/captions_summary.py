"""Captions of data, for the page of --mode=data: what there is, and what is wrong."""

from typing import NamedTuple

from ddpm_jax.builders import captions_seen
from ddpm_jax.builders import data as build_data
from ddpm_jax.core import errors
from ddpm_jax.data import captions_classes, captions_files, files, images, sources
from ddpm_jax.runtime import console

SHARE_ONCE = 0.5  # of the words of a vocabulary that is worth a remark


class Summary(NamedTuple):
    """What --mode=data shows of captions.

    Attributes:
        described: "facts", "shown" and "lists" as the page shows them; None where
            there is nothing to tell.
        remarks: sentences.
    """

    described: dict | None
    remarks: tuple[str, ...]


def summarise(config, dataset, workdir) -> Summary:
    """Return what --mode=data shows of captions, read by the run or not.

    Args:
        config: of the run.
        dataset: its training split; None where training would stop.
        workdir: of the run.
    """
    remarks = []
    found = _of_files(config, remarks)
    seen, shown = None, []
    try:
        captioned = _captioned(config, dataset)
        if captioned is not None:
            seen = captions_seen.statistics(config, captioned, workdir)
            shown = _shown(captioned)
    except errors.Refusal as error:
        remarks.append(f"captions: {error}")
    if found is None and seen is None:
        return Summary(None, tuple(dict.fromkeys(remarks)))
    missing = found.without() if found else []
    facts = _facts_of_files(found, missing) if found else []
    lists = {"Images without captions": missing}
    if seen:
        facts += captions_seen.facts(seen)
        lists["Captions that lose their end"] = list(seen.cut)
        lists["Unknown words"] = [f"{word}: {n:,}" for word, n in seen.unknown]
        remarks += _remarks(seen)
    if missing:
        remarks.append(f"images without captions: {len(missing):,}")
    if not config.model.text_layers:
        remarks.append(
            "there are captions, and a run of this config reads none: "
            "model.text_layers=2 and data.flip=False make it read them"
        )
    described = {"facts": facts, "shown": shown, "lists": lists}
    return Summary(described, tuple(dict.fromkeys(remarks)))


def listing(config) -> files.Images:
    """Return the images of a folder or zip file, texts that are read not ignored."""
    found = _of_files(config, []) if config.model.text_layers else None
    return found.images if found else files.open_images(config.data.path)


def _of_files(config, remarks):
    """Return the captions that lie beside files, or None; a fault becomes a remark."""
    how = config.data.captions
    of_files = config.data.name in sources.WITH_CAPTION_FILES
    if not of_files or captions_classes.is_template(how):
        return None
    reads = config.model.text_layers > 0
    try:
        listed = files.open_images(config.data.path)
        return captions_files.find(listed, how, console.say if reads else _silent)
    except errors.Refusal as error:
        if not reads:  # else training stops with that sentence
            remarks.append(f"captions: {error}")
        return None


def _silent(line):
    del line


def _captioned(config, dataset):
    """Return the training split with captions, whether the run reads them or not."""
    if dataset is None or dataset.read_captions is not None:
        return dataset
    how = config.data.captions
    if how == "none":
        return None
    captioned = build_data.dataset(config, "train", say=_silent, captions=how)
    return captioned if captioned.read_captions is not None else None


def _shown(dataset):
    pixels, texts = captions_seen.shown(dataset)
    return list(zip(images.to_uint8(pixels), texts, strict=True))


def _facts_of_files(found, missing):
    counts = found.captions.counts
    few, many = (f"{counts.min():,}", f"{counts.max():,}")
    return [
        ("captions", f"{counts.sum():,}, from {found.origin}"),
        ("captions of an image", few if few == many else f"{few} … {many}"),
        ("images without caption", f"{len(missing):,}"),
    ]


def _remarks(seen):
    """Yield remarks about what a tokenizer makes of captions."""
    if seen.cut:
        longest = int(seen.lengths.max())
        yield (
            f"captions that lose their end: {len(seen.cut):,} of {len(seen.texts):,} "
            f"have more than {seen.tokenizer.context} tokens, the longest {longest:,}; "
            f"model.text_context={longest} holds them all"
        )
    if seen.unknown:
        named = ", ".join(repr(word) for word, _ in seen.unknown[:5])
        yield (
            f"words that the run does not know: {len(seen.unknown):,} ({named}); train "
            "a new run, or take them out"
        )
    if len(seen.once) > SHARE_ONCE * seen.tokenizer.vocabulary_size:
        yield (
            f"{len(seen.once):,} of {seen.tokenizer.vocabulary_size:,} words stand in "
            "one caption alone, and little can be learned of them; "
            "data.tokenizer=bytes reads any text"
        )
