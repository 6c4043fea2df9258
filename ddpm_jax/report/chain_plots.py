"""Figures of the 2015 paper's runs, after its figures 1 and 2."""

from collections.abc import Sequence

import numpy as np

from ddpm_jax.report import plots, sample_plots
from ddpm_jax.runtime import image_grid

BLUE, ORANGE = "#1f5fa8", "#c2410c"
GRID = 22  # arrows along each axis of the drift …
REACH = 2.2  # … and how far they lie from 0


def terms(by_t: dict, details: dict) -> bytes:
    """Return the PNG of the terms of K by step, the entropy bounds, and the rates.

    Args:
        by_t: "timestep", "kl", "entropy_lower", "entropy_upper" and "beta", [T] each.
        details: "ends" and "null" of the card.
    """
    page, (left, middle, right) = plots.figure(3)
    t = np.asarray(by_t["timestep"])[1:]
    kl = np.asarray(by_t["kl"])[1:]
    left.semilogy(t, np.maximum(kl, 1e-12), color=BLUE, linewidth=1.2)
    left.set(xlabel="t", ylabel="KL of the step, in the unit of K")
    spent = details["ends"] - np.cumsum(kl[::-1])[::-1]
    middle.plot(t, spent, color=BLUE, label="K with the steps from t up")
    middle.axhline(details["null"], color=ORANGE, linestyle="--", label="L_null")
    if "ceiling" in details:
        ceiling = details["ceiling"]
        middle.axhline(ceiling, color="#3f7d3a", linestyle=":", label="ceiling of K")
    middle.set(xlabel="t", ylabel="bits")
    middle.legend(fontsize=8)
    right.semilogy(t, np.asarray(by_t["beta"])[1:], color=BLUE)
    right.set(xlabel="t", ylabel="β_t")
    return plots.png(page)


def both_chains(
    forward: Sequence[np.ndarray], backward: Sequence[np.ndarray], kept: Sequence[int]
) -> bytes:
    """Return the PNG of figure 1: slices of the forward chain above the reverse one.

    Args:
        forward: data, then x_t of each kept t, [n, ...].
        backward: samples, then x_t of each kept t of the reverse chain.
        kept: zero-based t.
    """
    page, axes = plots.figure(len(forward), 2)
    names = ["x_0", *(f"x_t, t = {t + 1}" for t in kept)]
    whole = np.concatenate([forward[0], backward[-1]])
    for row, (label, parts) in enumerate((("forward", forward), ("reverse", backward))):
        for axis, name, samples in zip(axes[row], names, parts, strict=True):
            sample_plots.draw(axis, samples, within=whole)
            axis.set_title(f"{label}: {name}", fontsize=10)
    return plots.png(page)


def images(panels: Sequence[tuple[str, np.ndarray]]) -> bytes:
    """Return the PNG of grids of grey or colour images, a panel each.

    Args:
        panels: (title, uint8 images [n, H, W, C]) of each.
    """
    page, axes = plots.figure(len(panels))
    for axis, (title, shown) in zip(np.ravel(axes), panels, strict=True):
        grid = image_grid.grid(shown, columns=image_grid.columns_for(None))
        axis.imshow(grid.squeeze(), cmap="Greys_r", vmin=0, vmax=255)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    return plots.png(page)


def lattice() -> np.ndarray:
    """Return the points at which the drift is drawn, [n, 2]."""
    line = np.linspace(-REACH, REACH, GRID)
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)


def drift_frame(title: str, points: np.ndarray, arrows) -> np.ndarray:
    """Return one picture of points in the plane and the drift, uint8 [H, W, 3].

    Args:
        title: above it.
        points: of the chain, [n, 2].
        arrows: where the drift is drawn and what it is, [m, 2] each; None for none.
            They are scaled to be seen, anew in each picture.
    """
    page, axis = plots.figure(1)
    page.set_size_inches(4.4, 4.4)
    axis.plot(points[:, 0], points[:, 1], ".", color=ORANGE, markersize=2.5)
    if arrows is not None:
        places, drift = arrows
        axis.quiver(*places.T, *drift.T, color=BLUE, angles="xy", width=0.003)
    reach = 1.1 * REACH
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
    axis.set_aspect("equal")
    axis.set_title(title, fontsize=10)
    return plots.pixels(page)


def drift(fields: Sequence[tuple[int, np.ndarray, np.ndarray]]) -> bytes:
    """Return the PNG of the drift f_μ(x, t) − x over the plane.

    Args:
        fields: (zero-based t, points [n, 2], drift [n, 2]) of each panel.
    """
    page, axes = plots.figure(len(fields))
    for axis, (t, points, arrows) in zip(axes, fields, strict=True):
        axis.quiver(*points.T, *arrows.T, color=BLUE, angles="xy", width=0.003)
        axis.set_title(f"f_μ(x, t) − x, t = {t + 1}", fontsize=10)
        axis.set_aspect("equal")
    return plots.png(page)
