"""Line charts as small inline SVG that take their colours from the page.

matplotlib's own SVG cannot follow a dark scheme, repeats its ids when several charts
share a page and is ten times as large; its tick locators serve here.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from ddpm_jax.report import html

MAX_POINTS = 200  # of a line that is read as a trend
WIDTH, HEIGHT = 360, 205
LEFT, TOP, BOTTOM = 44, 8, 36  # margins
NAMED, UNNAMED = 68, 12  # right margin with and without the names of lines
LABEL_GAP = 13  # between the names of lines
NUM_COLOURS = 5


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: written at its end; "" for a chart of one line.
        x, y: [n]; points where y is missing (None or not finite) are left out.
        colour: 0 … 4 of the page's palette.
        dashed: e.g. for a reference.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    colour: int = 0
    dashed: bool = False

    def points(self, *, log: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return the finite x and y, float64; positive ones alone if `log`."""
        x, y = np.asarray(self.x, np.float64), np.asarray(self.y, np.float64)
        kept = np.isfinite(x) & np.isfinite(y)
        if log:
            kept &= y > 0
        return x[kept], y[kept]


def chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str = "step",
    unit: str = "",
    log: bool = False,
    zero: bool = False,
    below: str | None = None,
    max_points: int = MAX_POINTS,
) -> html.Html:
    """Return a figure of lines, or nothing where no line has a point.

    A line of more than `max_points` is shown by the means of equal runs of neighbours;
    a single line then has the range of each run behind it. The figure says so.

    Args:
        lines: from the one drawn first to the one on top.
        title: caption; x_label: name of the horizontal axis; unit: of y.
        log: logarithmic y; values that are not positive are left out.
        zero: let y start at 0.
        below: what to know to read it.
        max_points: of a line.
    """
    data = [(line, *line.points(log=log)) for line in lines]
    data = [(line, x, y) for line, x, y in data if len(x)]
    if not data:
        return html.Html("")
    run = max(math.ceil(len(x) / max_points) for _, x, _ in data)
    axes = Axes.around(data, log=log, zero=zero)
    drawn = [_grid(axes, x_label)]
    if len(data) == 1 and run > 1:
        drawn.append(_band(axes, *data[0], run))
    means = [
        (line, _by_run(x, run, np.mean), _by_run(y, run, np.mean))
        for line, x, y in data
    ]
    drawn += [_line(axes, *item) for item in means]
    drawn += _names(axes, means)
    svg = html.tag(
        "svg",
        html.tag("title", _in_words(title, data, x_label, unit)),
        drawn,
        class_="chart",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
    )
    caption = [title, html.tag("span", f", {unit}", class_="unit") if unit else None]
    if run > 1:
        with_range = ", and their range" if len(data) == 1 else ""
        below = f"Means of {run:,} values each{with_range}. {below or ''}"
    return html.figure(svg, caption, below=below)


@dataclasses.dataclass(frozen=True)
class Axes:
    """The ranges of x and y, and the right end of x in the picture."""

    x_range: tuple[float, float]
    y_range: tuple[float, float]
    right: float
    log: bool

    @classmethod
    def around(cls, data, *, log, zero):
        """Return axes that hold every point, with some room above and below."""
        x = np.concatenate([x for _, x, _ in data])
        y = np.concatenate([y for _, _, y in data])
        low, high = float(y.min()), float(y.max())
        right = WIDTH - (NAMED if any(line.name for line, _, _ in data) else UNNAMED)
        if log:
            room = max((high / low) ** 0.05, 1.05)
            return cls(_span(x), (low / room, high * room), right, log=True)
        low = min(low, 0.0) if zero else low
        room = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
        low = low if zero and low == 0 else low - room
        return cls(_span(x), (low, high + room), right, log=False)

    def x(self, value):
        """Return the horizontal position of values."""
        low, high = self.x_range
        share = (np.asarray(value) - low) / (high - low)
        return LEFT + share * (self.right - LEFT)

    def y(self, value):
        """Return the vertical position of values."""
        ends = np.asarray([*self.y_range, 1.0])
        value = np.asarray(value, np.float64)
        low, high, _ = np.log10(ends) if self.log else ends
        share = ((np.log10(value) if self.log else value) - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    def x_ticks(self):
        """Return round steps along x."""
        ticks = _linear_ticks(self.x_range, 4, integer=True)
        return _inside(ticks, self.x_range)

    def y_ticks(self):
        """Return round values along y; powers of ten on a wide logarithmic axis."""
        if self.log:
            from matplotlib import ticker

            low, high = self.y_range
            for subs in ((1.0,), (1.0, 2.0, 5.0)):
                locator = ticker.LogLocator(subs=subs, numticks=6)
                ticks = _inside(locator.tick_values(low, high), self.y_range)
                if len(ticks) > 1:
                    return ticks
        return _inside(_linear_ticks(self.y_range, 4), self.y_range)


def _span(x):
    low, high = float(x.min()), float(x.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _linear_ticks(ends, count, **options):
    from matplotlib import ticker

    locator = ticker.MaxNLocator(count, steps=[1, 2, 2.5, 5, 10], **options)
    return locator.tick_values(*ends)


def _inside(ticks, ends):
    room = 1e-9 * (ends[1] - ends[0])
    return [float(t) for t in ticks if ends[0] - room <= t <= ends[1] + room]


def tick_text(value: float) -> str:
    """Return e.g. "20k", "1.5M", "0.02" or "10⁻⁵"."""
    size = abs(value)
    for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size >= factor and (suffix != "k" or size >= 1e4 or size % 1e3 == 0):
            return f"{value / factor:g}{suffix}".replace("-", "−")
    if 0 < size < 1e-4:
        exponent = math.floor(math.log10(size) + 1e-9)
        factor = f"{value / 10.0**exponent:.3g}·".removeprefix("1·")
        return f"{factor}10{html.power(exponent)}".replace("-", "−")
    return f"{value:.6g}".replace("-", "−")


# ---- drawing -------------------------------------------------------------------------


def _by_run(values, run, summary):
    """Return the summary of every `run` neighbours."""
    return np.array([summary(values[i : i + run]) for i in range(0, len(values), run)])


def _path(axes, x, y):
    points = zip(axes.x(x), axes.y(y), strict=True)
    return " ".join(f"{left:.1f},{top:.1f}" for left, top in points)


def _line(axes, line, x, y):
    style = f"c{line.colour % NUM_COLOURS}"
    if len(x) == 1:
        left, top = float(axes.x(x)[0]), float(axes.y(y)[0])
        return html.tag("circle", cx=f"{left:.1f}", cy=f"{top:.1f}", r=3, class_=style)
    if line.dashed:
        style += " dashed"
    return html.tag("polyline", points=_path(axes, x, y), class_=style)


def _band(axes, line, x, y, run):
    middle = _by_run(x, run, np.mean)
    low, high = _by_run(y, run, np.min), _by_run(y, run, np.max)
    outline = f"{_path(axes, middle, high)} {_path(axes, middle[::-1], low[::-1])}"
    return html.tag("polygon", points=outline, class_=f"c{line.colour % NUM_COLOURS}")


def _names(axes, data):
    """Write each line's name at its end, moved apart where they would collide."""
    ends = sorted(
        (float(axes.y(y)[-1]), index)
        for index, (line, _, y) in enumerate(data)
        if line.name
    )
    lowest = HEIGHT - BOTTOM
    positions, previous = [], -math.inf
    for top, _ in ends:
        previous = max(top, previous + LABEL_GAP)
        positions.append(previous)
    for place in reversed(range(len(positions))):
        positions[place] = min(positions[place], lowest)
        lowest = positions[place] - LABEL_GAP
    return [
        html.tag(
            "text",
            data[index][0].name,
            x=axes.right + 6,
            y=f"{top + 4:.1f}",
            class_=f"label c{data[index][0].colour % NUM_COLOURS}",
        )
        for (_, index), top in zip(ends, positions, strict=True)
    ]


def _grid(axes, x_label):
    """Return horizontal lines with their values, and the values along x."""
    bottom, right = HEIGHT - BOTTOM, axes.right
    for value in axes.y_ticks():
        top = f"{float(axes.y(value)):.1f}"
        yield html.tag("line", x1=LEFT, x2=right, y1=top, y2=top, class_="grid")
        yield html.tag(
            "text",
            tick_text(value),
            x=LEFT - 6,
            y=top,
            dy="0.35em",
            text_anchor="end",
        )
    yield html.tag("line", x1=LEFT, x2=right, y1=bottom, y2=bottom, class_="grid")
    for value in axes.x_ticks():
        left = f"{float(axes.x(value)):.1f}"
        yield html.tag(
            "text", tick_text(value), x=left, y=bottom + 15, text_anchor="middle"
        )
    yield html.tag(
        "text", x_label, x=(LEFT + right) / 2, y=HEIGHT - 6, text_anchor="middle"
    )


def _in_words(title, data, x_label, unit):
    """Return what a chart shows, for those who do not see it."""
    unit = f" {unit}" if unit else ""
    parts = [
        f"{line.name + ': ' if line.name else ''}{html.short(float(y[0]))}{unit} at "
        f"{x_label} {html.short(float(x[0]))}, {html.short(float(y[-1]))}{unit} at "
        f"{x_label} {html.short(float(x[-1]))}"
        for line, x, y in data
    ]
    return f"{title}. " + "; ".join(parts)
