"""Plots as PNG files, by matplotlib without a display."""

import io

import numpy as np


def bits_by_t(timesteps, vb, *, total, standard_error, note) -> bytes:
    """Return the PNG of the bound's terms by t, with their running sum.

    Args:
        timesteps: [T′] original timesteps.
        vb: [T′] mean terms in bits per dimension, indexed by t.
        total, standard_error: of the whole bound, for the title.
        note: what was scored, for the title.
    """
    figure, (terms, running) = _figure(2)
    positive = np.maximum(vb, 1e-9)
    terms.semilogy(timesteps, positive, color="#1f5fa8", linewidth=1.2)
    terms.semilogy(timesteps[:1], positive[:1], "o", color="#c2410c", markersize=5)
    terms.annotate(
        "decoder",
        (timesteps[0], positive[0]),
        xytext=(9, -12),
        textcoords="offset points",
        color="#c2410c",
    )
    terms.set(xlabel="timestep t", ylabel="term of the bound, bits/dim")
    running.plot(timesteps, np.cumsum(vb[::-1])[::-1], color="#1f5fa8", linewidth=1.5)
    running.set(xlabel="timestep t", ylabel="bits/dim spent from T down to t")
    running.set_ylim(bottom=0)
    figure.suptitle(f"{total:.3f} ± {standard_error:.3f} bits/dim, {note}")
    return _png(figure)


def _figure(columns):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 * columns, 3.6), layout="constrained", dpi=110)
    axes = figure.subplots(1, columns)
    for axis in np.atleast_1d(axes):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
