"""Curve and table of prompt accuracy by guidance scale, from the cards of a run.

    python -m ddpm_jax.main --mode=evaluate --workdir=runs/shapes_text \\
        --config.evaluation.metric=prompt_accuracy --config.sampling.guidance_scale=2
    python benchmarks/prompt_accuracy.py runs/shapes_text prompt_accuracy.png

The first command is given once for each scale; cards of other settings are left out.
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

SPLITS = {"seen": "seen in training", "never_seen": "never seen"}
NUMBERS = {"one_object": ("one object", "o"), "two_objects": ("two objects", "s")}
COLOURS = {"seen": "#1f5fbf", "never_seen": "#c2571a"}


def cards(run: pathlib.Path) -> dict[float, dict]:
    """Return the cards of a run by guidance scale, those of its newest step.

    Raises:
        SystemExit: there is none.
    """
    found = [
        json.loads(path.read_text())
        for path in sorted(run.glob("evaluation/prompt_accuracy_*.json"))
    ]
    if not found:
        raise SystemExit(f"{run} has no card of prompt_accuracy: evaluate it first")
    newest = max(card["protocol"]["checkpoint"] for card in found)
    return {
        card["protocol"]["guidance_scale"]: card
        for card in found
        if card["protocol"]["checkpoint"] == newest
    }


def table(found: dict[float, dict]) -> str:
    """Return the shares in percent, a column for each scale."""
    scales = sorted(found)
    lines = ["| `guidance_scale` | " + " | ".join(f"{s:g}" for s in scales) + " |"]
    lines.append("|---|" + "---|" * len(scales))
    for split, said in SPLITS.items():
        for number, (name, _) in NUMBERS.items():
            cells = [_percent(found[s][split]["by_number"][number]) for s in scales]
            lines.append(f"| {name}, {said} | " + " | ".join(cells) + " |")
        for attribute in sorted(found[scales[0]][split]["by_attribute"]):
            cells = [
                _percent(found[s][split]["by_attribute"][attribute]) for s in scales
            ]
            lines.append(f"| {attribute}, {said} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _percent(entry) -> str:
    return f"{100 * entry['share']:.0f}"


def draw(found: dict[float, dict], path: pathlib.Path) -> None:
    """Write the curve with Wilson's intervals of 95 %."""
    figure, axes = pyplot.subplots(figsize=(5.2, 3.2), dpi=120)
    for split, said in SPLITS.items():
        for number, (name, marker) in NUMBERS.items():
            rows = [found[s][split]["by_number"][number] for s in sorted(found)]
            low = [100 * (row["share"] - row["low"]) for row in rows]
            high = [100 * (row["high"] - row["share"]) for row in rows]
            axes.errorbar(
                sorted(found),
                [100 * row["share"] for row in rows],
                [low, high],
                color=COLOURS[split],
                marker=marker,
                markersize=4,
                linewidth=1.2,
                capsize=2,
                linestyle="-" if number == "one_object" else "--",
                label=f"{name}, {said}",
            )
    axes.set(xlabel="guidance scale", ylabel="prompts followed, %", ylim=(0, 103))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(0, 0.4))
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    run_, out = map(pathlib.Path, sys.argv[1:3])
    by_scale = cards(run_)
    print(table(by_scale))
    draw(by_scale, out)
