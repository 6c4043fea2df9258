"""What a claim is made of."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from benchmarks.claims import evidence
from benchmarks.claims.evidence import Quantity


class Row(NamedTuple):
    """A row of a claim's table: what it is of, and a number for each column."""

    told: str
    numbers: tuple[Quantity | None, ...]


class Curve(NamedTuple):
    """A line of a picture: a number at each x."""

    told: str
    x: tuple[float | Quantity, ...]
    y: tuple[Quantity, ...]


class Picture(NamedTuple):
    """Lines with error bars; without curves the picture is drawn by its own function.

    Attributes:
        x, y: what the axes are.
        curves: the lines.
        log: axes that are logarithmic, "x", "y", "xy" or "".
        own: name of a function of `pictures` that draws it instead.
        alt: what it shows, for readers who do not see it.
    """

    x: str
    y: str
    curves: tuple[Curve, ...] = ()
    log: str = ""
    own: str = ""
    alt: str = ""


class Claim(NamedTuple):
    """A claim of a paper, and how it is tested.

    Attributes:
        name: of the command and the page.
        title: of the page.
        paper: where it is claimed.
        says: what the paper says, in our words.
        checks: what must hold here; none for what cannot be tested.
        columns, rows: the table.
        published: the paper's table, Markdown.
        picture: of the page, None for none.
        limits: how the experiment differs from the paper's, and what it cannot show.
        because: verdict → why, in words; a text is shown beside its verdict alone, so
            that none outlives the numbers that it was written about.
    """

    name: str
    title: str
    paper: str
    says: str
    checks: tuple[evidence.Check, ...] = ()
    columns: tuple[str, ...] = ()
    rows: Sequence[Row] = ()
    published: str = ""
    picture: Picture | None = None
    limits: str = ""
    because: Mapping[str, str] = {}

    @property
    def needs(self) -> frozenset[tuple[str, str]]:
        """(arm, measure) of checks, table and picture."""
        return frozenset().union(*(quantity.needs for quantity in self.quantities()))

    def quantities(self) -> list[Quantity]:
        """Return every number of the claim."""
        found = [check.quantity for check in self.checks]
        found += [number for row in self.rows for number in row.numbers if number]
        for curve in self.picture.curves if self.picture else ():
            found += [*curve.y, *(x for x in curve.x if isinstance(x, Quantity))]
        return found


class Bed(NamedTuple):
    """A data set on which a claim is tested: how its arms and measurements are named.

    Attributes:
        data: as of `arms.Arm`.
        prefix, suffix: of arms, and of claims.
        key, value: of the measurements of distance, and of the number in them.
        bits_key: of the measurements of bits.
        distance: what the distance is called.
        told: what is trained, for the limits of a claim.
    """

    data: str
    prefix: str
    suffix: str
    key: str
    value: str
    bits_key: str
    distance: str
    told: str

    def named(self, name: str) -> str:
        """Return the name of a claim on this data set."""
        return name + self.suffix

    def fd(self, arm: str, way: str = "ancestral 25") -> Quantity:
        """Return the distance of what an arm makes in some way from the data."""
        measure = f"{self.key} {way}"
        return evidence.measured(self.prefix + arm, measure, self.value)

    def bits(self, arm: str, steps: str = "", part="total") -> Quantity:
        """Return bits/dim of an arm, or a part of them; all steps where none is "
        "said."""
        measure = f"{self.bits_key} {steps}".strip()
        return evidence.measured(self.prefix + arm, measure, part)

    def gradients(self, arm: str, number: str) -> Quantity:
        """Return how noisy gradients are, see `gradients.noise`."""
        measure = "gradients" if self.data == "digits" else f"{self.data} gradients"
        return evidence.measured(self.prefix + arm, measure, number)

    def table(self, rows: Mapping[str, str], *ways: str) -> tuple[Row, ...]:
        """Return rows of distance and bits/dim.

        Args:
            rows: arm → what the row is called.
            *ways: of sampling, whose distances are further columns.
        """
        return tuple(
            Row(
                told,
                (self.fd(arm), self.bits(arm), *(self.fd(arm, way) for way in ways)),
            )
            for arm, told in rows.items()
        )

    def because(self, **texts: Mapping[str, str]) -> Mapping[str, str]:
        """Return the reasons that were written for this data set: verdict → why."""
        return texts.get(self.data, {})

    @property
    def axis(self) -> str:
        """The distance, for an axis."""
        return self.distance.strip("`")

    @property
    def quality(self) -> tuple[str, str]:
        """The columns of `table`."""
        return self.distance, "bits/dim"


POINTS = Bed(
    data="points",
    prefix="points_",
    suffix="",
    key="points",
    value="distance",
    bits_key="points bits",
    distance="energy distance",
    told="A dense network of 96 channels after 2,000 steps on points of a spiral, T = "
    "200. Distance is the energy distance of 2,000 made points to held-out ones, "
    "without bias; bits/dim are of 500 held-out points on a grid of 256 × 256, whose "
    "entropy is {entropy:.3f} bits/dim: no model is below it in the mean.",
)
DIGITS = Bed(
    data="digits",
    prefix="",
    suffix="_digits",
    key="fd",
    value="proxy_fd",
    bits_key="bits",
    distance="`proxy_fd`",
    told="A U-Net of 16 channels after 600 steps on 8×8 digits, T = 200; it knows the "
    "class. Distance is `proxy_fd` of 500 samples, which is not FID; bits/dim are of "
    "60 test images. The histogram of each pixel has 2.431 bits/dim.",
)
BEDS = POINTS, DIGITS
