"""The figures of a run's page: what each record holds, over steps."""

import numpy as np

from ddpm_jax.report import charts, hints, html
from ddpm_jax.report import history as history_lib

QUARTERS = ("first ¼ of t", "second ¼", "third ¼", "last ¼")
RGB = (("red", 1), ("green", 3), ("blue", 4))
LEAST_PERCENT = 0.01  # of initial weights: what is less matters to nobody
EMA_PREFIX = "ema_initial_share/"


def training(history: history_lib.History) -> html.Html:
    """Return losses, rate, gradient, speed, and what is left of the initial weights."""
    return html.figures(
        [
            _by_quarter(history, "loss", "Training loss"),
            _by_quarter(history, "validation_loss", "Validation loss"),
            *_accuracies(history),
            _by_quarter(
                history, "sensitivity", "Sensitivity to the text", log=False, zero=True
            ),
            _validation_by_t(history),
            _single(
                history,
                "test_bits_per_dim",
                "Bits per dimension, test images",
                unit="bits/dim",
            ),
            _single(history, "proxy_fd", "Proxy Fréchet distance (not FID)"),
            _single(history, "fid", "FID while training, of few samples"),
            _single(history, "grad_norm", "Gradient norm", log=True),
            _single(history, "learning_rate", "Learning rate", zero=True),
            _single(history, "images_per_second", "Speed", unit="images/s", zero=True),
            _single(
                history,
                "data_wait",
                "Time spent waiting for data",
                unit="%",
                factor=100,
                zero=True,
            ),
            _averages(history),
        ]
    )


def _single(history, name, title, *, factor=1, **options):
    line = charts.Line("", *_scaled(history, name, factor))
    return charts.chart([line], title=title, **options)


def _accuracies(history):
    """Return the figures of a classifier; empty ones for other runs."""
    percent = {"factor": 100, "unit": "%", "log": False, "zero": True}
    return (
        _by_quarter(history, "accuracy", "Accuracy in training", **percent),
        _by_quarter(
            history, "validation_accuracy", "Accuracy on test images", **percent
        ),
        _gap(history, "accuracy", "Accuracy, training − test images", 100, "points"),
        _gap(history, "loss", "Loss, test − training images", -1, ""),
    )


def _by_quarter(history, name, title, *, factor=1, log=True, **options):
    lines = [charts.Line("mean", *_scaled(history, name, factor))]
    for quarter, label in enumerate(QUARTERS):
        steps, values = _scaled(history, f"{name}_q{quarter}", factor)
        lines.append(charts.Line(label, steps, values, colour=quarter + 1))
    return charts.chart([*lines[1:], lines[0]], title=title, log=log, **options)


def _scaled(history, name, factor):
    steps, values = history.numbers(name)
    return steps, [factor * value for value in values]


def _gap(history, term, title, factor, unit):
    """Draw what training images have over test images, at the same t and step."""
    lines = []
    for quarter, label in enumerate(QUARTERS):
        found = hints.gap(history, f"{term}_q{quarter}")
        steps, values = [s for s, _ in found], [factor * gap for _, gap in found]
        lines.append(charts.Line(label, steps, values, colour=quarter + 1))
    return charts.chart(lines, title=title, unit=unit)


def _validation_by_t(history):
    """Compare the first and the newest validation by timestep."""
    steps, every = history.column("validation_mse_by_t")
    records = [record for record in history.records if "validation_mse_by_t" in record]
    lines = []
    for place, colour, dashed in ((0, 0, True), (-1, 1, False)):
        if len(every) < 1 + (place == 0):
            continue
        t, values = records[place].get("t"), every[place]
        if history_lib.is_numbers(values) and history_lib.is_numbers(t):
            name = f"step {charts.tick_text(steps[place])}"
            lines.append(charts.Line(name, t, values, colour=colour, dashed=dashed))
    return charts.chart(
        lines, title="Validation error by timestep", x_label="timestep t", log=True
    )


def _averages(history):
    names = [name for name in history.names() if name.startswith(EMA_PREFIX)]
    lines = []
    for colour, name in enumerate(names):
        steps, shares = history.numbers(name)
        rate = name.removeprefix(EMA_PREFIX) if len(names) > 1 else ""
        percent = [100 * s if 100 * s > LEAST_PERCENT else None for s in shares]
        lines.append(charts.Line(rate, steps, percent, colour=colour))
    return charts.chart(
        lines,
        title="Initial weights left in the EMA",
        unit="%",
        log=True,
        below=f"A line ends where less than {LEAST_PERCENT} % is left.",
    )


def colour(history: history_lib.History) -> html.Html:
    """Return mean and deviation of samples and data by channel, over steps."""
    shift = hints.colour_shift(history)
    steps, means = history.column("sample_channel_mean")
    record = history.newest_record("sample_channel_mean")
    if shift is None:
        return html.Html("")
    channels = [(f"channel {index}", index) for index in range(len(shift))]
    if len(shift) == len(RGB):
        channels = RGB
    elif len(shift) == 1:
        channels = (("grey", 0),)
    target, spread = record["data_channel_mean"], record["data_channel_std"]
    lines = [
        charts.Line(
            name,
            steps,
            [
                (mean[index] - target[index]) / spread[index]
                if history_lib.is_numbers(mean) and len(mean) == len(shift)
                else np.nan
                for mean in means
            ],
            colour=number,
        )
        for index, (name, number) in enumerate(channels)
    ]
    zero = charts.Line("data", [steps[0], steps[-1]], [0, 0], dashed=True)
    figure = charts.chart(
        [zero, *lines], title="Mean of samples against data", unit="σ"
    )
    rows = [
        [
            name,
            record["sample_channel_mean"][index],
            target[index],
            shift[index],
            _item(record.get("sample_channel_std"), index),
            spread[index],
        ]
        for index, (name, _) in enumerate(channels)
    ]
    head = [
        "channel",
        "mean of samples",
        "of data",
        "difference, σ",
        "deviation of samples",
        "of data",
    ]
    table = html.table(
        head,
        rows,
        caption=f"At step {record['step']:,}; white is 1, "
        "black −1, σ the deviation of the data",
    )
    return html.join([table, html.figures([figure])])


def _item(values, index):
    return values[index] if history_lib.is_numbers(values) else None


def newest(history: history_lib.History) -> html.Html:
    """Return tables of everything recorded: the newest value, and its range."""
    rows, lists = [], []
    for name in history.names():
        steps, values = history.column(name)
        if isinstance(values[-1], list):
            lists.append([name, html.join(_listed(values[-1])), steps[-1]])
            continue
        _, numbers = history.numbers(name)
        ends = (min(numbers), max(numbers)) if numbers else (None, None)
        value = values[-1] if history_lib.is_number(values[-1]) else None
        rows.append([name, value, *ends, steps[-1]])
    tables = (
        ("Numbers", ["name", "newest", "lowest", "highest", "at step"], rows),
        ("Lists", ["name", "newest", "at step"], lists),
    )
    return html.join(
        html.details(f"{kind} in metrics.jsonl", html.table(head, found))
        for kind, head, found in tables
        if found
    )


def _listed(values):
    for place, value in enumerate(values):
        yield ", " if place else ""
        yield html.number(value) if history_lib.is_number(value) else str(value)
