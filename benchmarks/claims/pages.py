"""docs/claims.md and the page of each claim, from stored numbers alone."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.claims import arms, catalogue, evidence, measures, points
from benchmarks.claims.claim import BEDS, Claim
from benchmarks.claims.store import Store

MISSING = "–"


class Outcome(NamedTuple):
    """What stored numbers say of a claim.

    Attributes:
        claim: the claim.
        lookups: the measured numbers of each seed.
        judged: its checks.
        verdict: see `evidence.verdict`.
    """

    claim: Claim
    lookups: list[dict]
    judged: list[evidence.Judged]
    verdict: str

    @property
    def because(self) -> str:
        """Why, where a text was written for this verdict."""
        return self.claim.because.get(self.verdict, "")

    def missing(self) -> list[str]:
        """Return the arms of which numbers are not stored."""
        found = [
            arm
            for arm, measure in sorted(self.claim.needs)
            if any((arm, measure) not in lookup for lookup in self.lookups)
        ]
        return list(dict.fromkeys(found))


def outcome(one: Claim, kept: Store, *, fast: bool = False) -> Outcome:
    """Return what stored numbers say of a claim.

    Args:
        one: the claim.
        kept: the numbers.
        fast: whether they are those of --fast.

    Raises:
        Refusal: numbers that were measured with other settings.
    """
    lookups = []
    for seed in seeds_of(one):
        found = {}
        for arm, measure in one.needs:
            settings = measures.settings(measure, fast=fast)
            values = kept.values(arm, seed, measure, settings)
            if values is not None:
                found[arm, measure] = values
        lookups.append(found)
    judged = [evidence.judge(check, lookups) for check in one.checks]
    return Outcome(one, lookups, judged, evidence.verdict(judged))


def seeds_of(one: Claim) -> tuple[int, ...]:
    """Return the seeds of a claim: those of its arms, which are of one data set."""
    found = {arms.ARMS[arm].seeds for arm, _ in one.needs}
    if len(found) > 1:
        raise ValueError(f"{one.name}: arms of several data sets")
    return found.pop() if found else ()


def check_same_config(kept: Store) -> None:
    """Refuse stored numbers of arms whose config has changed since.

    A classifier's config is made of a run, which need not be here: it is left out.

    Raises:
        Refusal: names the file and the fields.
    """
    for name, arm in arms.ARMS.items():
        for seed in arm.seeds:
            told = arm.data == "plane" or arm.guides
            if told or kept.read(name, seed) is None:
                continue
            made = arms.config(name, seed, pathlib.Path())
            kept.check_config(name, seed, arms.record(made))


def listing(kept: Store, *, fast: bool = False) -> str:
    """Return a line for each claim: its name, verdict, and what is missing."""
    lines = []
    for one in catalogue.CLAIMS.values():
        found = outcome(one, kept, fast=fast)
        missing = ", ".join(found.missing())
        left = f" (of arms {missing})" if missing else ""
        lines.append(f"{one.name:20} {found.verdict}{left}")
    return "\n".join(lines)


def write(kept: Store, docs: pathlib.Path, *, fast: bool = False) -> None:
    """Write all pages and pictures.

    Args:
        kept: the numbers.
        docs: folder of claims.md and of claims/.
        fast: whether the numbers are those of --fast.

    Raises:
        Refusal: numbers of another experiment.
    """
    from benchmarks.claims import pictures

    if not fast:
        check_same_config(kept)
    folder = docs / "claims"
    folder.mkdir(parents=True, exist_ok=True)
    outcomes = [outcome(one, kept, fast=fast) for one in catalogue.CLAIMS.values()]
    for found in outcomes:
        drawn = pictures.draw(found)
        if drawn:
            (folder / f"{found.claim.name}.png").write_bytes(drawn)
        text = page(found, has_picture=bool(drawn))
        (folder / f"{found.claim.name}.md").write_text(text)
    (docs / "claims.md").write_text(overview(outcomes))
    print(f"{len(outcomes)} pages in {folder}, and {docs / 'claims.md'}")


# ---- the page of a claim -------------------------------------------------------------


def page(found: Outcome, *, has_picture: bool) -> str:
    """Return the page of a claim, Markdown."""
    one = found.claim
    parts = [
        f"# {one.title}",
        f"{one.paper}. {one.says}",
        f"**{found.verdict.capitalize()}.** {found.because}".strip(),
    ]
    if one.checks:
        parts += ["## What was to hold, and what was found", _checks(found)]
    if one.rows and any(found.lookups):
        parts += ["## Measured", _table(found)]
    if has_picture:
        parts.append(f"![{one.picture.alt}]({one.name}.png)")
    if one.published:
        parts += ["## The paper", one.published.strip()]
    limits = one.limits
    if "{entropy" in limits:
        limits = limits.format(entropy=points.entropy())
    parts += ["## What this can show", limits]
    if one.checks:
        parts += ["## Run it again", _again(found)]
    parts.append("[All claims](../claims.md)")
    return "\n\n".join(parts) + "\n"


def _checks(found):
    lines = ["| to hold | bound | measured, 95 % | |", "|---|---|---|---|"]
    for one in found.judged:
        interval = MISSING
        if one.found:
            low, high = number(one.found.low), number(one.found.high)
            interval = f"{number(one.found.mean)} ({low} … {high})"
        check = one.check
        bound = f"{check.side} {check.bound:g}"
        told = check.told.replace("|", "\\|")  # p(x|c) in a cell
        lines.append(f"| {told} | {bound} | {interval} | {one.state} |")
    return "\n".join(lines)


def _table(found):
    columns = found.claim.columns
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for row in found.claim.rows:
        cells = [_cell(quantity, found.lookups) for quantity in row.numbers]
        lines.append(f"| {row.told} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(quantity, lookups: Sequence[dict]) -> str:
    """Return mean ± standard error of the seeds that are there."""
    if quantity is None:
        return ""
    values = values_of(quantity, lookups)
    if not values:
        return MISSING
    if len(values) == 1:
        return f"{number(values[0])} (1 seed)"
    found = evidence.interval(values)
    of = "" if found.count == len(lookups) else f" ({found.count} seeds)"
    return f"{number(found.mean)} ± {number(found.error)}{of}"


def values_of(quantity: evidence.Quantity, lookups: Sequence[dict]) -> list[float]:
    """Return a quantity of each seed that has all it is made of."""
    return [
        quantity.of(lookup) for lookup in lookups if quantity.needs <= lookup.keys()
    ]


def number(value: float) -> str:
    """Return a number to three significant digits, without exponents where short."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        text = f"{float(f'{value:.3g}'):.6f}".rstrip("0").rstrip(".")
        return "0" if text == "-0" else text.replace("-", "−")
    return f"{value:.2g}".replace("-", "−")


def _again(found):
    one = found.claim
    runs = sorted({arm for arm, _ in one.needs})
    told = [f"`{arm}`: {arms.ARMS[arm].told}" for arm in runs]
    missing = found.missing()
    left = f" Not yet run: {', '.join(f'`{m}`' for m in missing)}." if missing else ""
    seeds = ", ".join(map(str, seeds_of(one)))
    return (
        f"```bash\npython -m benchmarks.claims {one.name}\n```\n\n"
        f"Seeds {seeds}. Arms, see `benchmarks/claims/arms.py`: "
        f"{'; '.join(told)}.{left}"
    )


# ---- the table of all ----------------------------------------------------------------

HEAD = """# What the papers claim, tested

Each claim was written down as inequalities, with bounds, seeds and sizes, before its
runs; the history of `benchmarks/claims/` shows it. *Not reproduced at this size* is a
result too, and no word against the paper.

```bash
python -m benchmarks.claims all          # hours on one core; resumes where it stopped
python -m benchmarks.claims cosine       # one claim, on points: minutes
python -m benchmarks.claims --render     # these pages, from the stored numbers alone
```
"""

RULE = """## The rule

A check *holds* where the 95 % interval of its number over the seeds (mean ± t standard
errors, t by Student's law: 2.776 for five seeds, 4.303 for three) lies wholly on its
side of the bound, is *contradicted* where it lies wholly on the other, and *undecided*
otherwise. A claim is *reproduced* where all its checks hold, *reproduced in part* where
some do, *not reproduced at this size* where none does. Numbers of one seed are compared
with each other first. With few seeds an effect must be several times its standard error
to be seen, so that *undecided* often means: too few seeds. Intervals are of each check
alone; of {n} checks two or three may be decided by chance.

## What is trained and measured

**Points**: {points}

**Digits**: {digits}

**Plane**: a mixture of Gaussians, whose noise, classifier and guided law are exact;
nothing is trained.

Five seeds of points, three of digits and plane; seeds differ in weights, order of the
data and noise, and share the data. What an arm changes stands in
`benchmarks/claims/arms.py`. Every number is stored in `benchmarks/claims/results/` with
the config it is of; numbers of a config that has changed are refused.
"""


def overview(outcomes: Sequence[Outcome]) -> str:
    """Return docs/claims.md."""
    parts = [HEAD]
    for title, data in SECTIONS.items():
        own = [found for found in outcomes if data_of(found.claim) == data]
        lines = [f"## {title}", "", "| claim | paper | checks that hold | verdict |"]
        lines += ["|---|---|---|---|", *map(_line, own), ""]
        parts.append("\n".join(lines))
    count = sum(len(found.judged) for found in outcomes)
    limits = {bed.data: bed.told.format(entropy=points.entropy()) for bed in BEDS}
    parts.append(RULE.format(n=count, **limits))
    return "\n".join(parts)


SECTIONS = {
    "On points, and in the plane": ("points", "plane"),
    "On digits": ("digits",),
    "Not testable here": (),
}


def data_of(one: Claim) -> tuple[str, ...]:
    """Return the section of a claim, a value of `SECTIONS`."""
    found = {arms.ARMS[arm].data for arm, _ in one.needs}
    return next(s for s in SECTIONS.values() if found & set(s) or not (found or s))


def _line(found):
    one = found.claim
    link = f"[{one.title}](claims/{one.name}.md)"
    held = sum(judged.state == evidence.HOLDS for judged in found.judged)
    told = f"{held} of {len(found.judged)}" if found.judged else MISSING
    if found.verdict == evidence.MISSING:
        told = MISSING
    paper = one.paper.split(",")[0].split(";")[0]
    reason = f": {found.because}" if found.because else ""
    return f"| {link} | {paper} | {told} | **{found.verdict}**{reason} |"
