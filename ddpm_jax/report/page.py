"""report.html: what a run is doing and how well, made from its directory alone."""

import json
import shlex
from pathlib import Path

from ddpm_jax.models import custom
from ddpm_jax.report import cards as cards_lib
from ddpm_jax.report import (
    chain_section,
    figures,
    grids,
    hints,
    html,
    loss_bands,
    time_spent,
)
from ddpm_jax.report import history as history_lib
from ddpm_jax.runs import commands, directory
from ddpm_jax.runtime import files

STATES = {"running": "Running", "finished": "Finished", "stopped": "Stopped"}
CHECKPOINT = "*.sha256.json"  # beside every whole one
MAX_CLASSES = 50  # class names that are listed
FINGERPRINT_SHOWN = 12  # letters


def write(
    run_dir: directory.RunDir, *, status: dict | None = None, base: dict | None = None
) -> Path:
    """Write report.html of a run, atomically, and return its path.

    Args:
        run_dir: a run; everything but its config may be missing.
        status: what the caller knows and the files do not tell: "state", one of
            `STATES`, and "reason", a few words on why it stopped. Each may be missing.
        base: the config that experiments are differences of, nested; None marks none.

    Raises:
        Refusal: config.json is missing or damaged.
        OSError: the page cannot be written.
    """
    stored = run_dir.read_config()
    config = history_lib.leaves(stored["config"])
    history = history_lib.History(run_dir.read_metrics())
    cards = cards_lib.Cards.read(run_dir)
    sections = {
        "Is this normal?": html.join(
            [loss_bands.element(history, stored, base), hints.element(history, config)]
        ),
        "Samples while training": _film(run_dir),
        "Training": figures.training(history),
        "Where the time went": time_spent.element(run_dir),
        "Likelihood by timestep": cards_lib.bound(cards),
        "Accuracy by noise level": cards_lib.accuracy(cards),
        "Bound of the chain": chain_section.element(run_dir, cards),
        "Colour": figures.colour(history),
        "Samples": grids.tagged(run_dir),
        "Evaluations": cards_lib.table(cards),
        "Configuration": _configuration(config, base),
        "Data and versions": _origin(run_dir, stored),
        "Everything recorded": figures.newest(history),
    }
    page = html.document(
        run_dir.path.name,
        sections,
        header=_header(run_dir, history, stored, config, status or {}),
    )
    files.write_bytes(run_dir.report, page)
    return run_dir.report


# ---- the head ------------------------------------------------------------------------


def _header(run_dir, history, stored, config, status):
    step, steps = history.step, config.get("train.steps")
    whole = history_lib.is_number(steps) and steps > 0
    state = status.get("state")
    if state is None and whole and step >= steps:
        state = "finished"
    said = [STATES.get(state, "Unfinished")]
    if status.get("reason"):
        said[0] += f" ({status['reason']})"
    said.append(f"step {step:,} of {steps:,}" if whole else f"step {step:,}")
    left = history.newest("eta_seconds")
    times = ["Written ", html.moment()]
    if state == "running" and left is not None:
        times += [" · done about ", html.moment(left)]
    parts = [html.tag("p", " · ".join(said), class_="lead"), html.note(times)]
    if whole:
        bar = html.tag(
            "progress",
            max=steps,
            value=min(step, steps),
            aria_label="Share of the steps taken",
        )
        parts.append(bar)
    parts += [_key_numbers(history), _commands(run_dir, stored, config, state)]
    return html.join(parts)


def _key_numbers(history):
    """Return the numbers that one looks for first."""

    def percent(name):
        share = history.newest(name)
        return None if share is None else 100 * share

    rows = [
        ("training loss", history.newest("loss"), ""),
        ("validation loss", history.newest("validation_loss"), ""),
        ("test bits/dim", history.newest("test_bits_per_dim"), ""),
        (
            "accuracy on test images",
            percent("validation_accuracy"),
            "%",
        ),
        ("sensitivity to the text", history.newest("sensitivity"), ""),
        ("the text has mattered since step", history.newest("text_matters_since"), ""),
        ("proxy FD", history.newest("proxy_fd"), ""),
        ("speed", history.newest("images_per_second"), "images/s"),
        ("waiting for data", percent("data_wait"), "%"),
        ("learning rate", history.newest("learning_rate"), ""),
    ]
    shown = [
        (name, html.number(value, unit, digits=3))
        for name, value, unit in rows
        if value is not None
    ]
    return html.facts(shown) if shown else None


def _commands(run_dir, stored, config, state):
    """Return how to go on, and what can be done with the run already."""
    steps = config.get("train.steps")
    if custom.is_noted(stored):  # a network that the command line does not know
        where = repr(str(run_dir.path))
        go_on = longer = f"ddpm_jax.train(config, {where}, network=…)"
        uses = [("Make samples", f"ddpm_jax.load({where}, network=…).sample(64)")]
    else:
        go_on = f"python -m ddpm_jax.main --workdir={shlex.quote(str(run_dir.path))}"
        longer = f"{go_on} --config.train.steps={2 * (steps or 0)}"
        uses = [
            ("Make samples", f"{go_on} --mode=sample"),
            ("Measure bits per dimension", f"{go_on} --mode=evaluate"),
        ]
        if hints.is_classifier(config):
            guide = commands.guide(config.get("model.guides") or "", run_dir.path)
            uses = [
                ("Measure accuracy by noise level", f"{go_on} --mode=evaluate"),
                ("Guide samples", guide),
            ]
    lines = []
    if state != "running":
        again = ("Train longer", longer) if state == "finished" else ("Go on", go_on)
        lines.append(again)
    if any(run_dir.checkpoints.glob(CHECKPOINT)):
        lines += uses
    written = "\n".join(f"# {name}\n{line}" for name, line in lines)
    return html.command(written) if written else None


def _film(run_dir):
    film = grids.film(run_dir)
    if not film:
        return film
    note = html.note(
        "The same noise at every step: what changes is the network. Early on the "
        "average of the weights (EMA) lags behind the raw ones; later it is mostly "
        "better."
    )
    return html.join([note, film])


# ---- what the run is -----------------------------------------------------------------


def _configuration(config, base):
    """Return the differences from the base, and every field on request."""
    usual = None if base is None else history_lib.leaves(_plain(base))
    every = [_field(name, value, usual) for name, value in sorted(config.items())]
    if usual is None:
        return html.table(["field", "value"], [row[:2] for row in every])
    changed = [
        _field(name, value, usual)
        for name, value in sorted(config.items())
        if usual.get(name) != value
    ]
    head = ["field", "value", "in the base"]
    same = html.note(
        f"{len(changed)} of {len(config)} fields differ from the base, "
        "ddpm_jax/config/__init__.py."
    )
    whole = html.details("All fields", html.table(head, every))
    return html.join([same, html.table(head, changed) if changed else None, whole])


def _plain(base):
    """Return a config as JSON would give it back: lists instead of tuples."""
    return json.loads(json.dumps(base, default=list))


def _field(name, value, usual):
    if usual is None or usual.get(name) == value:
        return [name, _code(value), ""]
    return [html.tag("b", name), html.tag("b", _code(value)), _code(usual.get(name))]


def _code(value):
    if isinstance(value, list) and len(value) > cards_lib.MAX_ITEMS:
        return f"{len(value):,} values"
    return html.tag("code", json.dumps(value, ensure_ascii=False))


def _origin(run_dir, stored):
    """Return the facts of the data, and the versions that a result depends on."""
    data = stored["data"]
    config = stored["config"].get("data")
    name = config.get("name") if isinstance(config, dict) else None
    shape = data.get("shape") or data.get("image_shape")  # as older runs call it
    names = data.get("class_names") or []
    facts = [
        ("data", name),
        ("images", _known(data.get("num_examples"))),
        ("size", "×".join(map(str, shape)) if shape else None),
        ("grey levels", _known(data.get("levels"))),
        ("classes", _known(data.get("num_classes"))),
        ("fingerprint", _fingerprint(data.get("fingerprint"))),
    ]
    parts = [html.facts(facts)]
    if names:
        more = len(names) - MAX_CLASSES
        listed = ", ".join(map(str, names[:MAX_CLASSES]))
        listed += f" and {more:,} more" if more > 0 else ""
        parts.append(html.tag("p", "Classes: ", listed, class_="note"))
    pages = {
        run_dir.data_page: "A look at the data",
        run_dir.diagnosis_page: "A diagnosis",
    }
    for path, title in pages.items():
        if path.exists():
            parts.append(html.tag("p", html.tag("a", title, href=path.name)))
    versions = stored.get("versions")
    if isinstance(versions, dict):
        parts.append(html.facts(sorted(versions.items())))
    return html.join(parts)


def _fingerprint(value):
    """Return enough of it to compare by eye; the rest shows on pointing at it."""
    return value and html.tag("span", str(value)[:FINGERPRINT_SHOWN], title=value)


def _known(value):
    return html.number(value) if history_lib.is_number(value) else value
