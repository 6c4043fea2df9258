"""Progressive coding: how good an image is after how many bits."""

import csv
import io
from typing import NamedTuple

import numpy as np

from ddpm_jax.metrics import bits

GREY_LEVELS_PER_UNIT = 127.5


class Curve(NamedTuple):
    """What a receiver has who has been sent x_T … x_t.

    Attributes:
        rate: [T′] bits per dimension sent until then, indexed by t.
        distortion: [T′] root mean squared error of x̂_0(x_t), of 0 … 255.
    """

    rate: np.ndarray
    distortion: np.ndarray


def curve(result: bits.BitsResult) -> Curve:
    """Return rate and distortion by t: the prior and the terms after t are paid.

    At t = 0 the rate is all of the bound but the decoder's term.

    Reference: DDPM section 4.3, figure 5 and the table of appendix D.
    """
    later = np.cumsum(result.vb[::-1])[::-1] - result.vb
    distortion = GREY_LEVELS_PER_UNIT * np.sqrt(result.x_0_mse)
    return Curve(result.prior + later, distortion)


def by_t(result: bits.BitsResult, timesteps) -> dict:
    """Return what a card says of every t.

    Args:
        result: of the score.
        timesteps: of the process, [T′].
    """
    return {
        "timestep": timesteps,
        "bits_per_dim": result.vb,
        "x_0_mse": result.x_0_mse,
        "noise_mse": result.noise_mse,
    }


class Step(NamedTuple):
    """A row of the table of progressive coding, in the order of sending.

    Attributes:
        timestep: t of the state that has arrived; −1 for the image itself.
        bits: per dimension, that sending this state took: the prior at first.
        rate: all bits per dimension that were sent so far.
        rmse: root mean squared error of x̂_0, of 0 … 255; 0 for the image itself.
    """

    timestep: int
    bits: float
    rate: float
    rmse: float


def steps(prior: float, by_t: dict) -> list[Step]:
    """Return the table of a score in bits per dimension, from x_T down to the image.

    The last row has all of the bound as its rate; the one before it is DDPM's rate,
    without the decoder's bits, and its distortion.

    Args:
        prior: bits of x_T.
        by_t: of a card, see `by_t`.

    Reference: DDPM section 4.3 and the table of appendix D.
    """
    arrived = [*reversed(by_t["timestep"]), -1]
    bits_sent = [prior, *reversed(by_t["bits_per_dim"])]
    errors = [*(GREY_LEVELS_PER_UNIT * np.sqrt(by_t["x_0_mse"]))[::-1], 0.0]
    rows = zip(arrived, bits_sent, np.cumsum(bits_sent), errors, strict=True)
    return [Step(t, *map(float, numbers)) for t, *numbers in rows]


def as_csv(table: list[Step]) -> str:
    """Return the table as CSV, a header first."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Step._fields)
    for row in table:
        writer.writerow([row.timestep, *(f"{number:.8g}" for number in row[1:])])
    return text.getvalue()


def plot(drawn: Curve, *, title: str) -> bytes:
    """Return the PNG of distortion against rate.

    Args:
        drawn: from `curve`.
        title: what was scored, and the result.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained", dpi=110)
    axis = figure.subplots()
    axis.plot(drawn.rate, drawn.distortion, color="#1f5fa8", linewidth=1.5)
    axis.set(xlabel="rate, bits/dim", ylabel="distortion, RMSE of 0 … 255")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
