"""Pictures of samples that are no images: points as a scatter, sequences as rows."""

import numpy as np

from ddpm_jax.report import plots

MAX_POINTS = 3000
MAX_ROWS = 60


def picture(title: str, samples: np.ndarray) -> bytes:
    """Return the PNG of samples [n, ...] in one panel, see `draw`."""
    page, axis = plots.figure(1)
    draw(axis, samples, within=samples)
    axis.set_title(title, fontsize=10)
    return plots.png(page)


def draw(axis, samples: np.ndarray, *, within: np.ndarray) -> None:
    """Draw samples [n, ...] on an axis of matplotlib.

    Points of 2 coordinates lie in a plane; whatever else is shown as rows, one a
    sample, dark where its values are high.

    Args:
        axis: to draw on.
        samples: all of one shape.
        within: samples whose reach the axis shows, so that panels compare.
    """
    flat = samples.reshape(len(samples), -1)
    if flat.shape[1] == 2:
        shown = flat[:MAX_POINTS]
        axis.plot(shown[:, 0], shown[:, 1], ".", color="#1f5fa8", markersize=1.5)
        reach = 1.15 * max(float(np.quantile(np.abs(within), 0.999)), 1e-6)
        axis.set(xlim=(-reach, reach), ylim=(-reach, reach))
        axis.set_aspect("equal")
        return
    rows = flat[:MAX_ROWS]
    axis.imshow(rows, cmap="Greys", aspect="auto", interpolation="nearest")
    axis.grid(visible=False)
    axis.set(xlabel="position", ylabel="sample")
    axis.locator_params(integer=True)
