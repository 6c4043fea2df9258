"""Plots as PNG files, by matplotlib without a display."""

import io

import numpy as np


def bits_by_t(timesteps, vb, *, prior, title) -> bytes:
    """Return the PNG of the bound's terms by t, with their running sum.

    Args:
        timesteps: [T′] original timesteps.
        vb: [T′] mean terms in bits per dimension, indexed by t.
        prior: the term of x_T, where the running sum starts.
        title: what was scored, and the result.
    """
    page, (terms, running) = figure(2)
    positive = np.maximum(vb, 1e-9)
    terms.semilogy(timesteps, positive, color="#1f5fa8", linewidth=1.2)
    terms.semilogy(timesteps[:1], positive[:1], "o", color="#c2410c", markersize=5)
    terms.annotate(
        "decoder",
        (timesteps[0], positive[0]),
        xytext=(-2, -34),
        textcoords="offset points",
        color="#c2410c",
    )
    terms.set(xlabel="timestep t", ylabel="term of the bound, bits/dim")
    spent = prior + np.cumsum(vb[::-1])[::-1]
    running.plot(timesteps, spent, color="#1f5fa8", linewidth=1.5)
    running.set(xlabel="timestep t", ylabel="bits/dim spent from T down to t")
    running.set_ylim(bottom=0)
    page.suptitle(title)
    return png(page)


def progressive(timesteps, rate, rmse, *, title) -> bytes:
    """Return the PNG of progressive coding: rate and error by t, and of each other.

    Args:
        timesteps: [n], in the order of sending.
        rate: [n] bits per dimension sent so far.
        rmse: [n] error of x̂_0, of 0 … 255.
        title: what was coded, and the result.
    """
    page, (error, sent, curve) = figure(3)
    label = "RMSE of the estimate of x_0, of 255"
    error.plot(timesteps, rmse, color="#1f5fa8", linewidth=1.5)
    error.set(xlabel="timestep t that has arrived", ylabel=label)
    sent.plot(timesteps, rate, color="#1f5fa8", linewidth=1.5)
    sent.set(xlabel="timestep t that has arrived", ylabel="rate, bits/dim sent so far")
    for axis in (error, sent):
        axis.invert_xaxis()
    curve.plot(rate, rmse, color="#1f5fa8", linewidth=1.5)
    curve.plot(rate[-1:], rmse[-1:], "o", color="#c2410c", markersize=5)
    curve.annotate(
        f"{rate[-1]:.2f} bits/dim, RMSE {rmse[-1]:.2g}",
        (rate[-1], rmse[-1]),
        xytext=(-4, 14),
        textcoords="offset points",
        color="#c2410c",
        horizontalalignment="right",
    )
    curve.set(xlabel="rate, bits/dim", ylabel=label)
    for axis in (error, sent, curve):
        axis.set_ylim(bottom=0)
    page.suptitle(title)
    return png(page)


def figure(columns: int, rows: int = 1):
    """Return a matplotlib figure of plain axes, and them, without any display."""
    from matplotlib.figure import Figure

    size = (5.2 * columns, 3.6 * rows)
    made = Figure(figsize=size, layout="constrained", dpi=110)
    axes = made.subplots(rows, columns)
    for axis in np.ravel(axes):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return made, axes


def png(figure) -> bytes:
    """Return a matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def pixels(figure) -> np.ndarray:
    """Return a matplotlib figure as a picture, uint8 [H, W, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
