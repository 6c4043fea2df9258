"""The page of `--mode=diagnose`: verdicts first, then each check with what it saw."""

from collections.abc import Sequence

import numpy as np

from ddpm_jax.core import arrays
from ddpm_jax.data import images as images_lib
from ddpm_jax.diagnosis import findings as findings_lib
from ddpm_jax.diagnosis import measure
from ddpm_jax.diagnosis.findings import Finding
from ddpm_jax.report import charts, grids, html
from ddpm_jax.runtime import image_grid

PICTURE_BYTES = 600_000
SHOWN_T = 8
KINDS = {
    findings_lib.OK: "good",
    findings_lib.WATCH: "watch",
    findings_lib.PROBLEM: "watch",
}


def page(
    title: str, findings: Sequence[Finding], shown: dict[str, html.Html], *, facts
) -> bytes:
    """Return the page as HTML.

    Args:
        title: its heading.
        findings: in the order of the checks.
        shown: name of a check → charts and pictures.
        facts: pairs of name and text about what was diagnosed.
    """
    _, sentence = findings_lib.conclusion(findings)
    lead = html.tag("p", f"{sentence[0].upper()}{sentence[1:]}.", class_="lead")
    header = html.join(
        [lead, html.note(["Written ", html.moment()]), html.facts(facts)]
    )
    sections = {"Verdicts": _verdicts(findings)}
    for finding in findings:
        sections[finding.name.capitalize()] = _section(finding, shown.get(finding.name))
    return html.document(title, sections, header=header)


def _verdicts(findings):
    items = (
        html.tag(
            "li",
            html.tag("b", f"{f.name.capitalize()}, {f.verdict}:"),
            f" {_sentence(f.said)}",
            class_=KINDS.get(f.verdict),
        )
        for f in findings
    )
    return html.tag("ul", items, class_="hints")


def _section(finding, content):
    head = html.tag(
        "p", html.tag("b", f"{finding.verdict.capitalize()}: "), _sentence(finding.said)
    )
    remedy = finding.remedy and html.tag(
        "p", html.tag("b", "What to do: "), _sentence(finding.remedy)
    )
    reason = finding.reason and html.note(finding.reason)
    return html.join([head, remedy or None, reason or None, content])


def _sentence(text):
    return text if text.endswith(".") else f"{text}."


# ---- what each check saw -------------------------------------------------------------


def images(batch: np.ndarray, columns: int, alt: str) -> html.Html:
    """Return images of about [−1, 1] as a grid inside the page; NaN becomes grey.

    Args:
        batch: float [n, H, W, C].
    """
    finite = np.nan_to_num(batch, nan=0.0, posinf=1.0, neginf=-1.0)
    pixels = images_lib.to_uint8(finite)
    return grids.inline(pixels, columns=columns, alt=alt, limit=PICTURE_BYTES)


def data(seen: measure.DataStatistics, examples: np.ndarray) -> html.Html:
    """Return what the network sees."""
    caption = "Images as the network sees them"
    mean = html.figure(images(seen.mean[None], 1, "the mean image"), "Their mean")
    shown = html.figure(images(examples, image_grid.COLUMNS, caption), caption)
    return html.figures([shown, mean])


def schedule(whole: np.ndarray, kept: np.ndarray, timesteps: np.ndarray) -> html.Html:
    """Return the share of the image in x_t, of training and of sampling."""
    lines = [
        charts.Line("training", np.arange(len(whole)), np.sqrt(whole)),
        charts.Line("sampling", timesteps, np.sqrt(kept), colour=1, dashed=True),
    ]
    return html.figures(
        [
            charts.chart(
                lines,
                title="Share of the image in x_t, √ᾱ",
                x_label="timestep t",
                zero=True,
            )
        ]
    )


def denoising(t: np.ndarray, probed: measure.Probed) -> html.Html:
    """Return the error of one step by t, and what it looks like."""
    names = (measure.NETWORK, measure.STRAIGHT, *measure.TRIVIAL)
    lines = [
        charts.Line(
            name, t, probed.errors[name].mean(axis=1), colour, dashed=colour > 0
        )
        for colour, name in enumerate(names)
    ]
    chosen = arrays.spread(len(t), SHOWN_T)
    pairs = np.stack([probed.x_t[chosen], probed.x_0[chosen]], axis=1)
    # [t, 2, images, H, W, C] → for each image a line of x_t and one of x̂_0
    pairs = np.moveaxis(pairs, 2, 0).swapaxes(1, 2)
    strip = images(
        pairs.reshape(-1, *pairs.shape[3:]), len(chosen), "noised and denoised images"
    )
    levels = ", ".join(str(level) for level in t[chosen])
    return html.figures(
        [
            charts.chart(
                lines[::-1],
                title="Error of the noise in one step",
                x_label="timestep t",
                unit="1 is predicting none",
                log=True,
            ),
            html.figure(
                strip,
                "Noised test images, and below each what the network makes of it",
                below=f"t = {levels}",
            ),
        ]
    )


def noise_level(levels, t_given, errors) -> html.Html:
    """Return the error for each t given; a line should be lowest at its own t."""
    lines = [
        charts.Line(f"t = {level}", t_given, row / row.min(), colour)
        for colour, (level, row) in enumerate(zip(levels, errors, strict=True))
    ]
    return html.figures(
        [
            charts.chart(
                lines,
                title="Error, relative to the lowest, by the t that is given",
                x_label="t given",
                log=True,
                below="One line for each t whose noise was added: it should be lowest "
                "where that t is given.",
            )
        ]
    )


def weights(t, by_kind: dict[str, np.ndarray]) -> html.Html:
    """Return the errors of raw and averaged weights by t.

    Args:
        by_kind: name → [K, n].
    """
    lines = [
        charts.Line(name, t, errors.mean(axis=1), colour)
        for colour, (name, errors) in enumerate(by_kind.items())
    ]
    title = "Error of the noise in one step"
    return html.figures(
        [charts.chart(lines, title=title, x_label="timestep t", log=True)]
    )


def clipping(t, outside: np.ndarray) -> html.Html:
    """Return the share of x̂_0 beyond ±1.1 by t."""
    line = charts.Line("", t, 100 * outside)
    title = "Values of x̂_0 beyond ±1.1"
    return html.figures(
        [charts.chart([line], title=title, x_label="timestep t", unit="%", zero=True)]
    )


def steps(counts, differences, walked: np.ndarray) -> html.Html:
    """Return the change by doubling the steps, and the same noise at each count.

    Args:
        walked: [len(counts), n, H, W, C].
    """
    line = charts.Line("", counts[1:], differences)
    count = min(walked.shape[1], image_grid.COLUMNS)
    rows = walked[:, :count].reshape(-1, *walked.shape[2:])
    listed = ", ".join(str(n) for n in counts)
    return html.figures(
        [
            charts.chart(
                [line],
                title="Change from half as many steps",
                x_label="steps",
                unit="σ of the data",
                zero=True,
            ),
            html.figure(
                images(rows, count, "samples from the same noise"),
                "The same noise, one line for each number of steps",
                below=f"{listed} steps, from the top",
            ),
        ]
    )


def samples(made: np.ndarray, real: np.ndarray) -> html.Html:
    """Return samples beside real images of the same classes."""
    return html.figures(
        [
            html.figure(images(batch, image_grid.COLUMNS, name), name)
            for name, batch in (("Samples", made), ("Real images", real))
        ]
    )


def copies(
    of_samples: np.ndarray, of_held_out: np.ndarray, made: np.ndarray, real: np.ndarray
) -> html.Html:
    """Return the distances in order, and the closest pairs.

    Args:
        of_samples, of_held_out: relative distances.
        made, real: [n, H, W, C], the closest samples and their nearest images.
    """
    lines = [
        charts.Line(
            name,
            (np.arange(len(values)) + 0.5) / len(values),
            np.sort(values),
            colour,
            dashed=colour > 0,
        )
        for colour, (name, values) in enumerate(
            (("samples", of_samples), ("held out", of_held_out))
        )
    ]
    pairs = np.concatenate([made, real])
    return html.figures(
        [
            charts.chart(
                lines,
                title="Distance to the nearest training image",
                x_label="share of the images",
                unit="distances of the next ten",
                zero=True,
                max_points=max(len(of_samples), len(of_held_out)),
            ),
            html.figure(
                images(pairs, len(made), "closest pairs"),
                "The closest samples, and below each its nearest training image",
            ),
        ]
    )
