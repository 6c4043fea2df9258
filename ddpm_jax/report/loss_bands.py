"""Whether the loss of a run of a known config is where it was with other seeds.

Bands are made by tests/report/make_loss_bands.py: for each logged step the interval in
which the mean loss of the last 25 steps lies for 99.9 % of the seeds, estimated from a
few of them. A change of jax, of a kernel or of ours that trains otherwise shows here.
"""

import hashlib
import json
from typing import NamedTuple

from ddpm_jax.models import custom
from ddpm_jax.report import history as history_lib
from ddpm_jax.report import html

EVERY = 25  # steps over which the loss is the mean
# Where the fields are that decide what is trained and how, but for the seed.
SECTIONS = ("data", "model", "diffusion", "train")
INDIFFERENT = (  # what a run lets change, but for its number of steps
    "data.path",
    "data.vocabulary",
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
    "train.exit_code_on_preemption",
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


BANDS = (
    Band(
        *("digits", "0.10", "ec25146969fc4ee3", 5),
        (
            (25, 0.8566, 0.9202),
            (50, 0.3047, 0.3390),
            (75, 0.1326, 0.1721),
            (100, 0.0948, 0.1646),
            (125, 0.1022, 0.1284),
            (150, 0.0807, 0.1445),
            (175, 0.0791, 0.1323),
            (200, 0.0736, 0.1357),
        ),
    ),
)


def digest(config: dict, base: dict) -> str:
    """Return a digest of the fields that decide the loss, by dotted name.

    Those of `base` are left out: a field that is added, and is off, changes no digest.

    Args:
        config: of a run; fields of later versions may be missing.
        base: what experiments are differences of.
    """
    changed = {
        name: value
        for name, value in config.items()
        if name.split(".")[0] in SECTIONS and name not in INDIFFERENT
        if _plain(value) != _plain(base.get(name))
    }
    text = json.dumps(changed, sort_keys=True, default=list)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _plain(value):
    """Return a value as JSON gives it back."""
    return list(value) if isinstance(value, tuple) else value


def of_run(config: dict, base: dict, versions: dict | None) -> Band | None:
    """Return the band of a run's config, that of its release of jax if there is one."""
    own = digest(config, base)
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


def element(history: history_lib.History, stored: dict, base: dict | None) -> html.Html:
    """Return the sentence of the page; empty for a config without a band.

    Args:
        history: of the run.
        stored: its config.json.
        base: what experiments are differences of, nested; None tells nothing.
    """
    # The config of a network of the user's own does not say what is trained.
    if base is None or custom.is_noted(stored):
        return html.Html("")
    config = history_lib.leaves(stored["config"])
    band = of_run(config, history_lib.leaves(base), stored.get("versions"))
    found = None if band is None else outside(band, history)
    if found is None:
        return html.Html("")
    made = f"the first {band.rows[-1][0]} steps of {band.seeds} seeds of {band.config}"
    made += f", jax {band.jax}"
    if not found:
        return html.note(f"The loss is inside the band of {made}.")
    step, loss = found[0]
    return html.note(
        f"The loss is outside the band of {made}: {loss:.4f} at step {step}. By "
        "chance that happens to less than one seed in a hundred: something computes "
        "otherwise than it did."
    )
