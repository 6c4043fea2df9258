"""Where the wall time of a run went, over all its starts."""

from ddpm_jax.report import html
from ddpm_jax.runs import directory, goodput

WORDS = {goodput.TRAINING: "training (goodput)", **goodput.TOLD}
WORDS[goodput.LOST] = "lost to kills and going back"
UNITS = ((3600, "h"), (60, "min"), (1, "s"))


def element(run_dir: directory.RunDir) -> html.Html:
    """Return a table of time and share by kind; empty where nothing is known."""
    parts = goodput.read(run_dir)
    spent = goodput.account(parts)
    total = sum(spent.values())
    if total <= 0:
        return html.Html("")
    rows = [
        [word, f"{100 * spent[kind] / total:.1f} %", _duration(spent[kind])]
        for kind, word in WORDS.items()
    ]
    starts = sum(part[goodput.STARTING] > 0 for part in parts)
    first = int(parts[0]["first_step"])  # a run may be older than its record
    since = f" since step {first:,}" if first > 0 else ""
    note = html.note(
        f"{_duration(total)} of {starts} start{'s' * (starts != 1)}{since}. Time "
        "without a process is not counted, and of a killed one not what came after its "
        "last record. Waiting for data counts in full, though the device may have had "
        "work."
    )
    return html.join([note, html.table(["", "share", "time"], rows)])


def _duration(seconds):
    size, unit = next((u for u in UNITS if seconds >= 2 * u[0]), UNITS[-1])
    return f"{seconds / size:.1f} {unit}"
