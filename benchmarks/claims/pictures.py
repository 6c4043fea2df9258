"""The pictures of claims, drawn from stored numbers."""

import io

import numpy as np

from benchmarks.claims import arms, evidence, mixture, pages

COLOURS = ("#1f5fa8", "#c4502a", "#3a8a4d", "#7a4fa0")
MARKS = ("o", "s", "^", "D")


def draw(found: "pages.Outcome") -> bytes | None:
    """Return the picture of a claim as PNG; None where it has none, or no numbers."""
    picture = found.claim.picture
    if picture is None or not any(found.lookups):
        return None
    if picture.own:
        return OWN[picture.own](found)
    figure, axis = _axis(picture)
    drawn = False
    for number, curve in enumerate(picture.curves):
        points = [
            _point(x, y, found.lookups) for x, y in zip(curve.x, curve.y, strict=True)
        ]
        # An energy distance without bias may be below 0, where no logarithm is.
        is_log = "y" in picture.log
        points = [p for p in points if p and (p[2] > 0 or not is_log)]
        points = np.array(points)
        if not len(points):
            continue
        drawn = True
        across = points[:, 1] if points[:, 1].any() else None
        axis.errorbar(
            points[:, 0],
            points[:, 2],
            xerr=across,
            yerr=points[:, 3],
            label=curve.told,
            color=COLOURS[number % len(COLOURS)],
            marker=MARKS[number % len(MARKS)],
            markersize=4,
            linewidth=1.3,
            capsize=2,
        )
    if not drawn:
        return None
    _plain_numbers(axis, picture)
    axis.legend(frameon=False, fontsize=8)
    return _png(figure)


def _point(x, y, lookups):
    """Return (x, its error, y, its error) over the seeds, None where y is missing."""
    values = pages.values_of(y, lookups)
    if not values:
        return None
    across = [x] if isinstance(x, int | float) else pages.values_of(x, lookups)
    return (*_mean(across), *_mean(values))


def _mean(values):
    if len(values) == 1:
        return values[0], 0.0
    found = evidence.interval(values)
    return found.mean, found.error


def _axis(picture):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6), layout="constrained", dpi=110)
    axis = figure.subplots()
    axis.set(xlabel=picture.x, ylabel=picture.y)
    if "x" in picture.log:
        axis.set_xscale("log")
    if "y" in picture.log:
        axis.set_yscale("log")
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def _plain_numbers(axis, picture):
    """Label logarithmic axes by numbers as one reads them."""
    from matplotlib import ticker

    for name, one in (("x", axis.xaxis), ("y", axis.yaxis)):
        if name in picture.log:
            one.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            one.set_major_formatter(ticker.FormatStrFormatter("%g"))
            one.set_minor_formatter(ticker.NullFormatter())


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def rate_distortion(found: "pages.Outcome") -> bytes | None:
    """Draw error against bits, and the bits of each timestep."""
    from matplotlib.figure import Figure

    key = min(key for key in found.claim.needs)  # one arm, one measurement
    of_seeds = [lookup[key] for lookup in found.lookups if key in lookup]
    if not of_seeds:
        return None
    figure = Figure(figsize=(8.4, 3.4), layout="constrained", dpi=110)
    curve, terms = figure.subplots(1, 2)
    for seed, values in enumerate(of_seeds):
        by_t = np.array(values["by_t"])
        rate = values["prior"] + np.cumsum(by_t[::-1])[::-1] - by_t
        shown = {"color": COLOURS[0], "alpha": 0.6, "linewidth": 1.2}
        label = f"{len(of_seeds)} seeds" if not seed else None
        curve.plot(rate, values["rmse"], label=label, **shown)
        terms.plot(np.arange(len(by_t)), by_t, label=label, **shown)
    curve.set(xlabel=found.claim.picture.x, ylabel=found.claim.picture.y)
    curve.set_ylim(bottom=0)
    terms.set(xlabel="t; the decoder's term is t = 0", ylabel="bits/dim")
    terms.set_yscale("log")
    for axis in (curve, terms):
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
    return _png(figure)


PLANE_POINTS, PLANE_STEPS = 400, 250


def plane(found: "pages.Outcome") -> bytes:
    """Draw guided points over the density of the law that they are said to follow.

    The points are made anew: nothing is trained, and it takes seconds.
    """
    from matplotlib.figure import Figure

    del found
    scales = (1.0, 2.0, 4.0)
    figure = Figure(figsize=(9.0, 3.3), layout="constrained", dpi=110)
    places = mixture.grid()
    seed = arms.SEEDS["plane"][0]
    for axis, scale in zip(figure.subplots(1, len(scales)), scales, strict=True):
        law = mixture.tilted(scale)
        axis.contourf(
            *(places[..., 0], places[..., 1], law / law.max()),
            levels=(0.02, 0.1, 0.3, 0.6, 1.0),
            cmap="Blues",
            alpha=0.8,
        )
        made = mixture.led(seed, PLANE_POINTS, PLANE_STEPS, scale, "free")
        axis.scatter(*made.T, s=3, color=COLOURS[1], alpha=0.6, linewidths=0)
        other = mixture.CENTRES[mixture.CLASSES[1 - mixture.ASKED] > 0]
        axis.scatter(*other.T, marker="x", s=30, color="#666666", linewidths=1.2)
        axis.set(title=f"scale {scale:g}", xlim=(-2.2, 3.0), ylim=(-2.3, 2.3))
        axis.set_aspect("equal")
    return _png(figure)


OWN = {"rate_distortion": rate_distortion, "plane": plane}
