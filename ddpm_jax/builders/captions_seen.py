"""What a tokenizer makes of the captions of data, before the first step."""

import collections
import dataclasses

import numpy as np

from ddpm_jax.builders import captions as build_captions
from ddpm_jax.builders import trained_run
from ddpm_jax.core import arrays
from ddpm_jax.data.dataset import Dataset
from ddpm_jax.runs import directory
from ddpm_jax.text import encoding, words

MAX_IMAGES = 2_500  # whose captions are read; evenly spaced beyond
DRAWS = (np.arange(8) + 0.5) / 8  # that find up to eight captions of an image
SHOWN = 12  # images that are shown with theirs
LONG = 4_096  # tokens that are counted of one caption


@dataclasses.dataclass(frozen=True)
class CaptionStatistics:
    """Captions of evenly spaced images of a split.

    Attributes:
        tokenizer: what reads them.
        of_run: whether it is that of a run that exists, and not made of these captions.
        texts: the inspected captions, each once.
        lengths: tokens of each, int64 [n], `LONG` at most.
        cut: sentences of the tokenizer about captions that lose their end.
        unknown: words that it does not know, commonest first, with their numbers.
        once: words of its vocabulary that a single one of the captions has.
    """

    tokenizer: encoding.Tokenizer
    of_run: bool
    texts: tuple[str, ...]
    lengths: np.ndarray
    cut: tuple[str, ...]
    unknown: tuple[tuple[str, int], ...]
    once: tuple[str, ...]


def of_images(dataset: Dataset, indices: np.ndarray) -> list[tuple[str, ...]]:
    """Return captions of images, up to eight of each."""
    drawn = [dataset.captions(indices, draw) for draw in DRAWS]
    return [tuple(dict.fromkeys(texts)) for texts in zip(*drawn, strict=True)]


def shown(dataset: Dataset) -> tuple[np.ndarray, list[tuple[str, ...]]]:
    """Return some images float32 [n, H, W, C] and the captions of each."""
    indices = arrays.spread(len(dataset), SHOWN)
    # The images first: where one cannot be read, the next one comes with its captions.
    images = dataset.fetch(indices)["image"]
    return images, of_images(dataset, indices)


def statistics(config, dataset: Dataset, workdir) -> CaptionStatistics:
    """Return what the tokenizer that the config asks for makes of captions.

    Args:
        config: of the run.
        dataset: a split with captions.
        workdir: of the run; one that exists keeps its tokenizer.

    Raises:
        Refusal: no such tokenizer can be made.
    """
    made, of_run = _tokenizer(config, dataset, workdir)
    of_each = of_images(dataset, arrays.spread(len(dataset), MAX_IMAGES))
    texts = tuple(dict.fromkeys(text for texts in of_each for text in texts))
    unknown, once = _words(made, texts)
    known = set(unknown)
    readable = [text for text in texts if known.isdisjoint(words.split(text))]
    long = dataclasses.replace(made, context=LONG)
    return CaptionStatistics(
        tokenizer=made,
        of_run=of_run,
        texts=texts,
        lengths=np.array([long.encode(t).mask.sum() for t in readable], np.int64),
        cut=encoding.cut(made, readable),
        unknown=tuple(unknown.most_common()),
        once=once,
    )


def _tokenizer(config, dataset, workdir):
    if workdir and directory.RunDir.at(workdir).config.exists():
        saved = trained_run.read(workdir)
        if saved.facts.text is not None:
            return build_captions.tokenizer(saved.config, saved.facts), True
    return build_captions.made(config, dataset), False


def _words(tokenizer, texts):
    """Return how often words are unknown, and the known ones of a single caption."""
    if not isinstance(tokenizer, words.Words):
        return collections.Counter(), ()
    counts = collections.Counter(w for text in texts for w in set(words.split(text)))
    known = set(tokenizer.words)
    unknown = {word: n for word, n in counts.items() if word not in known}
    once = (word for word, n in counts.items() if n == 1 and word in known)
    return collections.Counter(unknown), tuple(sorted(once))


def facts(seen: CaptionStatistics) -> list[tuple[str, str]]:
    """Return what is worth a line, in pairs of name and text."""
    one = seen.tokenizer
    named = f"{one.kind}, {one.vocabulary_size:,} tokens"
    pairs = [
        ("tokenizer", f"{named}, of the run" if seen.of_run else named),
        ("tokens that a network reads", f"{one.context:,}"),
        ("different captions looked at", f"{len(seen.texts):,}"),
    ]
    if len(seen.lengths):
        low, middle, high = np.percentile(seen.lengths, (0, 50, 100)).astype(int)
        shown = f"{low:,} … {high:,}, half of them at most {middle:,}"
        pairs.append(("tokens of a caption", shown))
    pairs.append(("captions that lose their end", f"{len(seen.cut):,}"))
    pairs.append(("unknown words", f"{len(seen.unknown):,}"))
    if isinstance(one, words.Words):
        pairs.append(("words in one caption alone", f"{len(seen.once):,}"))
    return pairs
