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


def table(rows: Mapping[str, str], *columns) -> tuple[Row, ...]:
    """Return the rows of a table that has the same columns for several arms.

    Args:
        rows: arm → what the row is called.
        *columns: (measure, value) of each.
    """
    return tuple(
        Row(told, tuple(evidence.measured(arm, *column) for column in columns))
        for arm, told in rows.items()
    )


USUAL = "fd ancestral 25"  # where a claim is not about steps
FD = (USUAL, "proxy_fd")
BITS = ("bits", "total")
QUALITY = ("`proxy_fd`", "bits/dim")


def fd(arm: str, measure: str = USUAL) -> Quantity:
    """Return proxy_fd of an arm."""
    return evidence.measured(arm, measure, "proxy_fd")


def bits(arm: str, measure: str = "bits", part: str = "total") -> Quantity:
    """Return bits/dim of an arm, or a part of them."""
    return evidence.measured(arm, measure, part)
