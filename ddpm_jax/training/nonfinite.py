"""What to do about steps whose numbers are not finite: decisions and a record.

The train step itself skips such an update. This module notices, one step after the
other and a few late, so that the device never waits for the host; it counts those in a
row, and it says what was going on. Everything depends on metrics that all processes of
a job share, so all of them decide alike at the same step.
"""

import collections
import dataclasses
import math
from typing import Any

import jax
import numpy as np

from ddpm_jax.core import errors

GO_ON, ROLL_BACK, STOP = "go on", "roll back", "stop"
SHOWN_IMAGES = 3


@dataclasses.dataclass(frozen=True)
class NonFiniteStep:
    """A step whose update was skipped.

    Attributes:
        step: steps taken, this one included.
        metrics: of `train_step`, on the host.
    """

    step: int
    metrics: dict[str, Any]


class NonFiniteSteps:
    """Finds bad steps and decides whether training goes on.

    Args:
        limit: bad steps in a row that are too many.
        lag: how many steps the device may be ahead of the step that is checked.
        rolled_back: the run has rolled back to a checkpoint once already.
    """

    def __init__(self, limit: int, lag: int = 4, rolled_back: bool = False):
        self._limit, self._lag, self._rolled_back = limit, lag, rolled_back
        self._waiting = collections.deque()
        self._in_a_row = []  # numbers of the steps

    def add(self, step: int, metrics: dict[str, Any]) -> list[NonFiniteStep]:
        """Take the device metrics of a step; return bad ones that are now known.

        Waits for the step `lag` steps ago and for no later one.
        """
        self._waiting.append((step, metrics))
        return self._check(leave=self._lag)

    def drain(self) -> list[NonFiniteStep]:
        """Look at all steps that are left, and wait for them.

        Call it before the state is saved or used, and at the end.
        """
        return self._check(leave=0)

    @property
    def verdict(self) -> str:
        """GO_ON, or after `limit` bad steps in a row ROLL_BACK the first time and STOP.

        A verdict other than GO_ON is final: roll back with a new `NonFiniteSteps`.
        """
        if len(self._in_a_row) < self._limit:
            return GO_ON
        return STOP if self._rolled_back else ROLL_BACK

    @property
    def reason(self) -> str:
        """The sentence behind a verdict other than GO_ON, without its full stop."""
        steps = ", ".join(str(step) for step in self._in_a_row)
        again = " again, after rolling back to a checkpoint,"
        again = again if self._rolled_back else ""
        return f"loss, gradient or update of step {steps} was{again} not finite"

    def refusal(self) -> errors.Refusal:
        """Return what ends a run whose verdict is STOP."""
        return errors.Refusal(
            f"{self.reason}: nothing after the last checkpoint is saved; see crashes/ "
            "in the run directory, and start a new run with a lower "
            "train.learning_rate or train.clip_norm=1, from this one's last checkpoint "
            "if train.init_from names it"
        )

    def _check(self, leave):
        found = []
        while len(self._waiting) > leave:
            step, metrics = self._waiting.popleft()
            if jax.device_get(metrics["finite"]):  # waits for that step
                if self.verdict == GO_ON:
                    self._in_a_row = []
                continue
            found.append(NonFiniteStep(step, jax.device_get(metrics)))
            if self.verdict == GO_ON:
                self._in_a_row.append(step)
        return found


# ---- the record of one bad step ------------------------------------------------------


def crash_record(
    bad: NonFiniteStep,
    *,
    block_names: tuple[str, ...],
    image_ids,
    condition,
    param_norms,
    versions: dict[str, str],
    command: str,
) -> dict[str, Any]:
    """Return all that is known about a bad step, as JSON can hold it.

    Numbers that are not finite become "nan", "inf" and "-inf".

    Args:
        bad: the step.
        block_names: from `blocks.block_names`, K names.
        image_ids: [B] indices of the batch in the data set.
        condition: numbers [B] that the network was given, by key, such as the labels.
        param_norms: [K] from `blocks.norms` of the parameters, as they are when this is
            called: the bad step left them alone, a few good ones may have followed.
        versions: of the packages.
        command: what goes on with the run.
    """
    t, losses = bad.metrics["t"], bad.metrics["example_loss"]
    columns = {"id": image_ids, "t": t, "loss": losses}
    columns |= condition
    bad_first = np.argsort(np.isfinite(losses), kind="stable")
    bad_blocks = _not_finite(block_names, bad.metrics["block_norms"])
    return {
        "step": bad.step,
        "explanation": _explanation(bad, image_ids, block_names, param_norms),
        "command": command,
        **{
            name: _plain(bad.metrics[name])
            for name in ("loss", "grad_norm", "learning_rate")
        },
        "first_bad_block": bad_blocks[0] if bad_blocks else None,
        "blocks": {
            name: {"gradient_norm": _plain(gradient), "parameter_norm": _plain(weights)}
            for name, gradient, weights in zip(
                block_names, bad.metrics["block_norms"], param_norms, strict=True
            )
        },
        "images": [
            {name: _plain(values[row]) for name, values in columns.items()}
            for row in bad_first
        ],
        "versions": versions,
    }


def _explanation(bad, image_ids, block_names, param_norms):
    """Return the sentence that says where the numbers went bad, and what helps."""
    losses = bad.metrics["example_loss"]
    (rows,) = np.nonzero(~np.isfinite(losses))
    bad_weights = _not_finite(block_names, param_norms)
    bad_blocks = _not_finite(block_names, bad.metrics["block_norms"])
    lower = "lower train.learning_rate or set train.clip_norm=1 if it happens again"
    if bad_weights:
        what = f"the weights of {bad_weights[0]} are not finite"
        help_ = "start from a whole checkpoint"
    elif len(rows) == len(losses):
        what = "the loss of every image is not finite"
        help_ = f"the network's activations have grown too large: {lower}"
    elif len(rows):
        shown = [f"{image_ids[i]} at t {bad.metrics['t'][i]}" for i in rows]
        more = ", …" if len(rows) > SHOWN_IMAGES else ""
        what = (
            f"the loss of {len(rows)} of {len(losses)} images is not finite "
            f"({', '.join(shown[:SHOWN_IMAGES])}{more})"
        )
        help_ = f"look at these images, and {lower}"
    elif bad_blocks:
        what = (
            f"the losses are finite but the gradient is not, in {len(bad_blocks)} of "
            f"{len(block_names)} blocks, the first being {bad_blocks[0]}"
        )
        help_ = lower
    else:
        what = "loss and gradient are finite but the update is not"
        help_ = f"Adam's moments have grown too large: {lower}"
    return f"{what}, so this update was skipped; {help_}"


def _not_finite(names, values):
    return [
        name for name, value in zip(names, values, strict=True) if not _finite(value)
    ]


def _finite(value):
    return math.isfinite(float(value))


def _plain(value):
    """Return an array scalar as a number, or as the name of what JSON cannot hold."""
    number = np.asarray(value).item()
    return number if _finite(number) else str(number)
