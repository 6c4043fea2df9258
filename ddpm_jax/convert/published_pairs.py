"""What a published model scores when a published classifier guides it.

Source: Diffusion Models Beat GANs (Dhariwal & Nichol 2021), tables 4, 5 and 14, and the
commands in the readme of its code. Respacing "250" of the code keeps as many evenly
spaced steps as ours; the 25 steps of DDIM are its "ddim25".
"""

from typing import NamedTuple


class Row(NamedTuple):
    """A row of the published tables.

    Attributes:
        model, classifier: names of `published.PUBLISHED`.
        method: "ancestral" or "ddim".
        respacing: of the sampled process.
        scale: of the classifier's gradient.
        fid, sfid, precision, recall: as published; None where they are not.
    """

    model: str
    classifier: str
    method: str
    respacing: str
    scale: float
    fid: float | None = None
    sfid: float | None = None
    precision: float | None = None
    recall: float | None = None

    def sentence(self) -> str:
        """Return the row in words: "250 steps, scale 1: FID 4.59, …"."""
        steps = f"{self.method}, respacing {self.respacing}, scale {self.scale:g}"
        if self.fid is None:
            return f"{steps}: no score was published"
        return (
            f"{steps}: FID {self.fid}, sFID {self.sfid}, precision {self.precision}, "
            f"recall {self.recall} (50,000 samples, ADM's evaluator)"
        )


def _rows(size, *scores, model=""):
    names = model or f"{size}x{size}_diffusion", f"{size}x{size}_classifier"
    return [Row(*names, *score) for score in scores]


ANCESTRAL, DDIM = ("ancestral", "250"), ("ddim", "ddim25")

ROWS: tuple[Row, ...] = (
    *_rows(64, (*ANCESTRAL, 1.0)),
    *_rows(
        128,
        (*ANCESTRAL, 0.5, 2.97, 5.09, 0.78, 0.59),
        (*DDIM, 1.25, 5.98, 7.04, 0.78, 0.51),
    ),
    *_rows(
        256,
        (*ANCESTRAL, 1.0, 4.59, 5.25, 0.82, 0.52),
        (*DDIM, 2.5, 5.44, 5.32, 0.81, 0.49),
        (*ANCESTRAL, 10.0, 9.11, 10.93, 0.88, 0.32),
    ),
    *_rows(
        256,
        (*ANCESTRAL, 1.0, 33.03, 6.99, 0.56, 0.65),
        (*ANCESTRAL, 10.0, 12.0, 10.4, 0.76, 0.44),
        model="256x256_diffusion_uncond",
    ),
    *_rows(
        512,
        (*ANCESTRAL, 4.0, 7.72, 6.57, 0.87, 0.42),
        (*DDIM, 9.0, 8.41, 9.67, 0.83, 0.47),
    ),
)


def named() -> dict[str, Row]:
    """Return the rows by the names that configs/published.py gives them.

    "256x256_diffusion+classifier_ancestral_1" is the model, guided with scale 1.
    """
    return {f"{row.model}+classifier_{row.method}_{row.scale:g}": row for row in ROWS}


def described(model: str, classifier: str, sampling) -> list[str]:
    """Return what was published of a pair, first the row that is reproduced.

    Args:
        model, classifier: names of `published.PUBLISHED`.
        sampling: config.sampling.
    """
    rows = [row for row in ROWS if (row.model, row.classifier) == (model, classifier)]
    steps = {sampling.respacing, str(sampling.steps)}
    for row in rows:
        if (row.method, row.scale) == (sampling.method, sampling.classifier_scale) and (
            row.respacing in steps
        ):
            return [f"this is a published row: {row.sentence()}"]
    return [f"published: {row.sentence()}" for row in rows]
