"""Is this normal? Sentences about a run that its records bear out, and what to do."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from ddpm_jax.report import history as history_lib
from ddpm_jax.report import html

MIN_RECORDS = 8  # below this a trend is not told from chance
FLAT = 0.05  # relative change between the last two quarters of the records
RISING = 0.10
MAX_EMA_SHARE = 0.01  # of initial weights in an average that is fit for sampling
MAX_WAIT = 0.20  # of the time
JUMP = 10  # times the median
MEMORISING = 1.05  # times the lowest validation loss
TINT = 0.1  # standard deviations of the data
STRONG_TINT = 0.3
QUARTERS_SETTLED = 1000  # steps
BY_HEART = 0.05  # more of the training than of the test images named right
SPLITS = ("training_images", "validation")  # begin the names of what is validated
QUARTERS = ("_q0", "_q1", "_q2", "_q3")  # end the names of what is reported by t
TOO_MUCH = ("red", "green", "blue")
TOO_LITTLE = ("cyan", "magenta", "yellow")


@dataclasses.dataclass(frozen=True)
class Hint:
    """A finding in a few words, and what it means.

    Attributes:
        kind: "good", "watch" (something may be wrong) or "plain".
        finding: what the records say.
        meaning: why that is normal, or what to do.
    """

    kind: str
    finding: str
    meaning: str


def element(history: history_lib.History, config: dict) -> html.Html:
    """Return what there is to say about a run, what may be wrong first.

    Args:
        history: its records.
        config: {dotted path: value}.
    """
    if not history.records:
        every = config.get("train.log_every")
        after = f" after {every:,} steps" if history_lib.is_number(every) else ""
        return html.note(
            f"Nothing is recorded yet: the first line comes{after}, and before the "
            "first step the network is compiled, which may take minutes."
        )
    checks = CHECKS_OF_CLASSIFIERS if is_classifier(config) else CHECKS
    found = [hint for check in checks for hint in check(history, config)]
    found.sort(key=lambda hint: hint.kind != "watch")
    items = (
        html.tag("li", html.tag("b", hint.finding), " ", hint.meaning, class_=hint.kind)
        for hint in found
    )
    return html.tag("ul", items, class_="hints") if found else html.Html("")


def missing(history, config) -> Iterator[Hint]:
    """Values that were not finite."""
    del config
    for name in ("loss", "grad_norm", "validation_loss"):
        steps, values = history.column(name)
        bad = [
            step
            for step, value in zip(steps, values, strict=True)
            if not history_lib.is_number(value)
        ]
        if bad:
            yield Hint(
                "watch",
                f"{name} was not finite in {len(bad):,} of {len(steps):,} records, "
                f"first at step {bad[0]:,}.",
                "Start a new run with a lower train.learning_rate or "
                "train.clip_norm=1; train.init_from takes this one's last checkpoint.",
            )


def skipped_updates(history, config) -> Iterator[Hint]:
    """Updates that were skipped because they were not finite."""
    del config
    steps, skipped = history.numbers("skipped")
    if sum(skipped):
        first = next(step for step, count in zip(steps, skipped, strict=True) if count)
        yield Hint(
            "watch",
            f"{sum(skipped):,} updates were not finite and were skipped, the first by "
            f"step {first:,}.",
            "The files in crashes/ name the images, timesteps and blocks of the "
            "network.",
        )


def went_back(history, config) -> Iterator[Hint]:
    """Training that rolled back to a checkpoint."""
    del config
    for to, back in zip(*history.numbers("went_back_from"), strict=True):
        yield Hint(
            "watch",
            f"Training rolled back from step {back:,} to {to:,}.",
            "Too many updates in a row were not finite; from there on it draws other "
            "timesteps and noise. metrics.superseded.jsonl and crashes/ hold what was.",
        )


def resources(history, config) -> Iterator[Hint]:
    """Programs that are compiled again and again."""
    del config
    _, compilations = history.numbers("compilations")
    later = compilations[len(compilations) // 2 :]
    if len(compilations) >= MIN_RECORDS and later[-1] - later[0] >= len(later) - 1:
        yield Hint(
            "watch",
            f"Programs are compiled all the time, {later[-1] - later[0]:,} in the last "
            f"{len(later):,} records.",
            "Each costs seconds and memory: a shape changes from step to step, in a "
            "network of your own perhaps.",
        )


def trend(history, config) -> Iterator[Hint]:
    """The mean loss over the last half of the records."""
    del config
    _, loss = history.numbers("loss")
    if len(loss) < MIN_RECORDS:
        return
    quarter = len(loss) // 4
    before, now = np.mean(loss[-2 * quarter : -quarter]), np.mean(loss[-quarter:])
    change = (now - before) / abs(before)
    if change > RISING:
        yield Hint(
            "watch",
            f"The mean loss rises: {html.short(float(before))} before, "
            f"{html.short(float(now))} in the last quarter of the records.",
            "It should not: try a lower train.learning_rate, or train.clip_norm=1.",
        )
    elif abs(change) < FLAT:
        yield Hint(
            "plain",
            f"The mean loss is flat, at {html.short(float(now))}.",
            "That is normal: it averages over all amounts of noise, most of which are "
            "learned soon, while samples go on improving for long. Judge by the grids "
            "and by the validation loss.",
        )
    elif change < 0:
        yield Hint(
            "good",
            f"The mean loss falls: {html.short(float(before))} before, "
            f"{html.short(float(now))} in the last quarter of the records.",
            "It will flatten long before the samples stop improving.",
        )


def quarters(history, config) -> Iterator[Hint]:
    """Which timesteps cost most, for noise prediction."""
    first, last = history.newest("loss_q0"), history.newest("loss_q3")
    plain = config.get("diffusion.weighting", "none") == "none"
    noise = config.get("diffusion.prediction") == "noise"
    if None in (first, last) or not (plain and noise):
        return
    if first > last:
        yield Hint(
            "plain",
            f"The first quarter of t costs {html.short(first)}, the last "
            f"{html.short(last)}.",
            "That is normal for noise prediction: a little noise is hard to tell from "
            "the detail of an image, pure noise is easy to see.",
        )
    elif history.step >= QUARTERS_SETTLED:
        yield Hint(
            "watch",
            f"The last quarter of t costs {html.short(last)}, more than the first, "
            f"{html.short(first)}.",
            "With noise prediction it should be the easiest: nearly pure noise comes "
            "in and is to come out. Look at the range of the data and at the schedule.",
        )


def average(history, config) -> Iterator[Hint]:
    """What is left of the initial weights in the average that sampling uses."""
    rates = config.get("train.ema_decay") or ()
    for rate in rates[:1]:
        share = history.newest(f"ema_initial_share/{rate}")
        if share is None:
            return
        held = "less than 0.01" if share < 1e-4 else f"{100 * share:.2g}"
        finding = f"EMA {rate} holds {held} % of the initial weights."
        if share >= MAX_EMA_SHARE:
            yield Hint(
                "watch",
                finding,
                "Until it is below 1 % its samples look worse than those of the raw "
                "weights, and sampling.weights=auto uses the raw ones. Early in "
                "training that is normal.",
            )
        else:
            yield Hint("good", finding, "That is little enough to sample from it.")


def waiting(history, config) -> Iterator[Hint]:
    """How long the device waits for data."""
    del config
    _, waits = history.numbers("data_wait")
    if not waits:
        return
    wait = float(np.mean(waits[-MIN_RECORDS:]))
    if wait > MAX_WAIT:
        yield Hint(
            "watch",
            f"Training waits {100 * wait:.0f} % of its time for data.",
            "Raise data.cache_gib until the decoded images fit in memory, and keep "
            "data.path on a local disk.",
        )


def gradient(history, config) -> Iterator[Hint]:
    """Jumps of the gradient norm, and how often it is clipped."""
    steps, norms = history.numbers("grad_norm")
    if len(norms) < MIN_RECORDS:
        return
    start = len(norms) // 4  # the first steps are always rough
    median, top = float(np.median(norms)), start + int(np.argmax(norms[start:]))
    clip = config.get("train.clip_norm") or 0
    if norms[top] > JUMP * median:
        cure = (
            f"train.clip_norm={clip:g} has cut it."
            if clip
            else "If the loss jumps with it, start anew with train.clip_norm=1."
        )
        yield Hint(
            "plain" if clip else "watch",
            f"The gradient norm jumped to {html.short(norms[top])} at step "
            f"{steps[top]:,}, {norms[top] / median:.0f} times its median.",
            cure,
        )
    share = float(np.mean(np.asarray(norms[start:]) > clip)) if clip else 0
    if share > 0.5:
        yield Hint(
            "plain",
            f"The gradient norm is above train.clip_norm={clip:g} in "
            f"{100 * share:.0f} % of the records.",
            "Most steps are shortened; a larger clip_norm would let them be.",
        )


def memorising(history, config) -> Iterator[Hint]:
    """Whether the validation loss has turned."""
    steps, losses = history.numbers("validation_loss")
    if len(losses) < 2:
        return
    best = int(np.argmin(losses))
    if losses[-1] > MEMORISING * losses[best] and len(losses) - best > 2:
        cures = ["more data", "fewer steps", "model.dropout"]
        if config.get("data.flip") is False:
            cures.append("data.flip=True where a mirrored image is as good")
        yield Hint(
            "watch",
            f"The validation loss was lowest at step {steps[best]:,}, "
            f"{html.short(losses[best])}, and is {html.short(losses[-1])} now.",
            "That is how learning the training images by heart begins. What helps: "
            f"{', '.join(cures)}.",
        )
    elif losses[-1] < losses[0]:
        yield Hint(
            "good",
            f"The validation loss fell from {html.short(losses[0])} to "
            f"{html.short(losses[-1])}.",
            "It has the same images, noise and timesteps every time, so that what "
            "changes is the network.",
        )


def classifier_by_heart(history, config) -> Iterator[Hint]:
    """Whether a classifier names training images better than test images."""
    gaps = [gap(history, f"accuracy{part}") for part in ("", *QUARTERS)]
    if not all(gaps):
        return
    whole, *parts = [found[-1][1] for found in gaps]
    shares = [history.newest(f"{split}_accuracy") for split in SPLITS]
    said = "Training images are named right in {:.1f} %, test images in {:.1f} %"
    said = said.format(*(100 * share for share in shares))
    if whole <= BY_HEART and max(parts) <= 2 * BY_HEART:
        yield Hint(
            "good",
            f"{said}.",
            "It knows few of them by heart; at the largest t nobody can name them.",
        )
        return
    worst = int(np.argmax(parts))
    cures = ["a larger train.weight_decay", "model.dropout", "fewer steps", "more data"]
    if config.get("data.crop") != "random" and config.get("data.name") != "digits":
        cures.insert(0, "data.crop=random")
    yield Hint(
        "watch",
        f"{said}, {100 * parts[worst]:.1f} points less in quarter {worst + 1} of t.",
        "It has begun to know them by heart, and will guide samples towards them. What "
        f"helps: {', '.join(cures)}.",
    )


def gap(history, term: str) -> list[tuple[int, float]]:
    """Return by step how much larger `term` is for training than for test images.

    Args:
        term: such as "accuracy_q0", of a classifier's validation.
    """
    names = [f"{split}_{term}" for split in SPLITS]
    return [
        (record["step"], record[names[0]] - record[names[1]])
        for record in history.records
        if all(history_lib.is_number(record.get(name)) for name in names)
    ]


def is_classifier(config: dict) -> bool:
    """Return whether a run, by its {dotted path: value}, makes no images."""
    return config.get("model.kind") == "classifier"


def colour(history, config) -> Iterator[Hint]:
    """The mean colour of samples against that of the data."""
    del config
    shift = colour_shift(history)
    if shift is None:
        return
    worst = int(np.argmax(np.abs(shift)))
    size = abs(shift[worst])
    if size < TINT:
        yield Hint(
            "good",
            "The mean colour of the samples is that of the data,"
            if len(shift) > 1
            else "The mean brightness of the samples is that of the data,",
            f"to {size:.2g} σ (σ: the spread of the data's values).",
        )
        return
    yield Hint(
        "watch" if size > STRONG_TINT else "plain",
        f"Samples are {size:.2g} σ {_too(shift, worst)} "
        "(σ: the spread of the data's values).",
        "Tints come and go early in training. Users report that, where one stays, a "
        "larger train.batch_size or a new run with diffusion.prediction=v cures it.",
    )


def colour_shift(history) -> list[float] | None:
    """Return by channel (mean of samples − mean of data) / deviation of the data."""
    record = history.newest_record("sample_channel_mean") or {}
    names = ("sample_channel_mean", "data_channel_mean", "data_channel_std")
    values = [record.get(name) for name in names]
    if not all(map(history_lib.is_numbers, values)) or len({*map(len, values)}) > 1:
        return None
    if min(values[2]) <= 0:
        return None
    return [(s - d) / std for s, d, std in zip(*values, strict=True)]


def _too(shift, worst):
    above = shift[worst] > 0
    if len(shift) == 1:
        return "too bright" if above else "too dark"
    if len(shift) == len(TOO_MUCH):
        return f"too {(TOO_MUCH if above else TOO_LITTLE)[worst]}"
    return f"too {'high' if above else 'low'} in channel {worst}"


CHECKS = (
    missing,
    skipped_updates,
    went_back,
    resources,
    waiting,
    average,
    memorising,
    trend,
    quarters,
    gradient,
    colour,
)
# Without those that speak of samples, or of a loss by t that is like no other.
CHECKS_OF_CLASSIFIERS = (
    missing,
    skipped_updates,
    went_back,
    resources,
    waiting,
    average,
    classifier_by_heart,
    memorising,
    gradient,
)
