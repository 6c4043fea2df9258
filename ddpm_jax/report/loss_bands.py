"""Whether the loss of a run of a known config is where it was with other seeds.

Bands are made by benchmarks/loss_bands.py: for each logged step the interval in which
the mean loss of the last 25 steps lies with 99.9 % of the seeds. A change of jax, of a
kernel or of ours that trains otherwise shows here first.
"""

import hashlib
import json
from typing import NamedTuple

from ddpm_jax.report import history as history_lib
from ddpm_jax.report import html

EVERY = 25  # steps over which the loss is the mean
# Fields that decide what is trained and how, but for the seed.
SECTIONS = ("data", "model", "diffusion", "train")
INDIFFERENT = (
    "data.path",
    "data.cache_gib",
    "train.log_every",
    "train.sample_every",
    "train.validate_every",
    "train.evaluate_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.keep_every",
    "train.writers",
    "train.max_bad_steps",
    "train.microbatches",
    "train.init_min_share",
)


class Band(NamedTuple):
    """Where the loss of a config lies.

    Attributes:
        config: name of the packaged config.
        jax: release that it was made with.
        digest: of the config's fields, see `digest`.
        seeds: how many.
        rows: (step, lowest, highest) mean loss of the 25 steps before.
    """

    config: str
    jax: str
    digest: str
    seeds: int
    rows: tuple[tuple[int, float, float], ...]


BANDS: tuple[Band, ...] = ()


def digest(config: dict) -> str:
    """Return a digest of the fields that decide the loss, by dotted name.

    Fields at "", 0 or nothing at all are left out, so that a field that is added, and
    is off, changes no digest.
    """
    told = {
        name: value
        for name, value in config.items()
        if name.split(".")[0] in SECTIONS and name not in INDIFFERENT
        if value not in ("", 0, False, None, (), [])
    }
    text = json.dumps(told, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_run(config: dict, versions: dict | None) -> Band | None:
    """Return the band of a run's config, that of its release of jax if there is one."""
    own = digest(config)
    found = [band for band in BANDS if band.digest == own]
    release = ".".join(str((versions or {}).get("jax", "")).split(".")[:2])
    same = [band for band in found if band.jax == release]
    return next(iter(same or found), None)


def outside(band: Band, history: history_lib.History) -> list[tuple[int, float]] | None:
    """Return (step, loss) of the records outside the band; None where none is in reach.

    Only records that are a mean over 25 steps are compared.
    """
    steps, losses = history.numbers("loss")
    before = [0, *steps][:-1]
    compared = {
        step: loss
        for step, loss, last in zip(steps, losses, before, strict=True)
        if step - last == EVERY
    }
    rows = [row for row in band.rows if row[0] in compared]
    if not rows:
        return None
    return [
        (step, compared[step])
        for step, low, high in rows
        if not low <= compared[step] <= high
    ]


def element(history: history_lib.History, stored: dict) -> html.Html:
    """Return the sentence of the page; empty for a config without a band."""
    config = history_lib.leaves(stored["config"])
    band = of_run(config, stored.get("versions"))
    found = None if band is None else outside(band, history)
    if found is None:
        return html.Html("")
    made = f"the first {band.rows[-1][0]} steps of {band.seeds} seeds of {band.config}"
    made += f", jax {band.jax}"
    if not found:
        return html.note(f"The loss is inside the band of {made}.")
    step, loss = found[0]
    return html.note(
        f"The loss is outside the band of {made}: {loss:.4f} at step {step}. If "
        "nothing was changed, something computes otherwise than it did."
    )
