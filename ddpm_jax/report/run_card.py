"""card.md: what a run is, in a page of Markdown that can travel with its weights.

It is made from the run's directory: config.json, evaluation cards, pictures. The head,
with the licence, belongs to the user: it is written once and kept from then on.
"""

import json
import os
import shlex
from pathlib import Path

from ddpm_jax.models import custom
from ddpm_jax.report import cards as cards_lib
from ddpm_jax.report import grids
from ddpm_jax.report import history as history_lib
from ddpm_jax.runs import commands, directory
from ddpm_jax.runtime import files
from ddpm_jax.runtime.console import say

MARK = "<!-- Below this line --mode=evaluate and --mode=export write anew. -->"
UNKNOWN = "unknown"
CHECKPOINT = "*.sha256.json"  # beside every whole one
KINDS = {
    "unet": "A diffusion model",
    "upsampler": "A super-resolution diffusion model",
    "classifier": "A classifier of noisy images",
    "clip": "A CLIP that knows noisy images",
    "gaussian_2015": "A Gaussian chain of nonequilibrium thermodynamics",
    "binomial_2015": "A binomial chain of nonequilibrium thermodynamics",
}
# What of a card's protocol stands in the table; the file holds the rest.
PROTOCOL = (
    "checkpoint",
    "weights",
    "sampler",
    "steps",
    "respacing",
    "guidance_scale",
    "num_samples",
    "num_images",
    "split",
    "reference",
    "feature_network",
    "resize",
    "seed",
)
EMPTY = (None, "", [])
# Guidance of other kinds is told where it is another than this.
UNGUIDED = {
    "classifier": "",
    "weaker": "",
    "negative": "",
    "guidance_interval": [0.0, 1.0],
    "guidance_rescale": 0.0,
    "temperature": 1.0,
}
SECTIONS = ("diffusion", "model", "train", "data")
MAX_SHOWN = 60  # letters of a value


def write(run_dir: directory.RunDir, *, base: dict) -> Path | None:
    """Write card.md of a run; return its path, or None where a file is the user's.

    Above `MARK` everything stays as it is found: licence, words of the user's own. A
    card.md without that line is left alone.

    Args:
        run_dir: the run.
        base: the config that experiments are differences of, nested.

    Raises:
        Refusal: config.json is missing or damaged.
        OSError: the file cannot be written.
    """
    path = run_dir.path / "card.md"
    stored = run_dir.read_config()
    head = _head(stored, run_dir.path.name)
    if path.exists():
        before = _read(path)
        if MARK not in before:
            return None
        head = before.partition(MARK)[0]
    body = _body(run_dir, stored, base, _pictures(run_dir))
    files.write_bytes(path, f"{head}{MARK}\n\n{body}".encode())
    return path


def write_or_say(run_dir: directory.RunDir, *, base: dict) -> Path | None:
    """Write card.md as `write` does, after work that must not be lost with it.

    A card that cannot be written, as in a run that is only read, is told in a line.

    Raises:
        Refusal: config.json is missing or damaged.
    """
    try:
        return write(run_dir, base=base)
    except OSError as error:
        where = error.filename or run_dir.path / "card.md"
        say(f"{where} cannot be written ({error.strerror}): no card.md")
    return None


def for_diffusers(run_dir: directory.RunDir, folder: Path, *, base: dict) -> Path:
    """Write README.md, the model card, into a folder that was exported just now.

    The licence is that of card.md, where the user has filled it in.

    Args:
        run_dir, base: see `write`.
        folder: what diffusers reads; the newest picture is copied into it.
    """
    stored = run_dir.read_config()
    card = run_dir.path / "card.md"
    head = _read(card).partition(MARK)[0] if card.exists() else ""
    licence = next(
        (row for row in head.splitlines() if row.startswith("license: ")),
        f"license: {UNKNOWN}",
    )
    index = json.loads((folder / "model_index.json").read_text())
    scheduler, unet = (index[name][1] for name in ("scheduler", "unet"))
    shown = []
    for number, (title, link) in enumerate(_pictures(run_dir)[:1]):
        copied = folder / f"samples_{number}.png"
        files.write_bytes(copied, (run_dir.path / link).read_bytes())
        shown.append((title, copied.name))
    conditional = stored["data"].get("num_classes") and stored["config"]["model"].get(
        "class_conditional"
    )
    use = ["import diffusers", ""]
    if conditional:
        use += [
            f"folder = {folder.name!r}",
            f'unet = diffusers.{unet}.from_pretrained(f"{{folder}}/unet")',
            f'steps = diffusers.{scheduler}.from_pretrained(f"{{folder}}/scheduler")',
            "# unet(x_t, t, class_labels).sample, then steps.step(…), for t of steps",
        ]
    else:
        steps = stored["config"]["diffusion"]["num_steps"]
        use += [
            f'pipeline = diffusers.DDPMPipeline.from_pretrained("{folder.name}")',
            f"images = pipeline(num_inference_steps={steps}).images",
        ]
    body = _body(run_dir, stored, base, shown, use=("python", use))
    tags = ["diffusion", "ddpm", "ddpm_jax"]
    tags += [] if conditional else ["unconditional-image-generation"]
    text = (
        f"---\n{licence}\nlibrary_name: diffusers\ntags: [{', '.join(tags)}]\n---\n\n"
    )
    path = folder / "README.md"
    files.write_bytes(path, f"{text}# {run_dir.path.name}\n\n{body}".encode())
    return path


def _read(path):
    """Return a file's text; of one in another encoding, which is the user's, ""."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


# ---- parts ---------------------------------------------------------------------------


def _head(stored, name):
    """Return what is the user's to change: once written, it is kept."""
    source = stored["config"].get("data", {}).get("name", UNKNOWN)
    return "\n".join(
        [
            "---",
            f"license: {UNKNOWN}  # of the weights: fill it in before you share them",
            "library_name: ddpm_jax",
            f"datasets: [{json.dumps(source)}]  # may its pictures be used for this?",
            "---",
            "",
            f"# {name}",
            "",
            "Say here what it is for, what it is not for, and what pictures it saw.",
            "",
            "",
        ]
    )


def _body(run_dir, stored, base, pictures, *, use=None):
    language, lines = use or ("bash", _commands(run_dir, stored))
    parts = [
        _what(run_dir, stored),
        "## Use",
        "\n".join([f"```{language}", *lines, "```"]),
        "## Data",
        _data(stored),
        "## Recipe",
        _recipe(stored, base),
        "## Metrics",
        _metrics(cards_lib.Cards.read(run_dir)),
    ]
    if pictures:
        parts += ["## Pictures"]
        parts += [f"![{title}]({link})\n\n{title}" for title, link in pictures]
    parts += ["## Versions", _versions(stored)]
    return "\n\n".join(parts) + "\n"


def _what(run_dir, stored):
    config, data = stored["config"], stored["data"]
    model = config.get("model", {})
    kind = KINDS.get(model.get("kind", "unet"), "A run")
    shape = "×".join(map(str, data.get("shape") or data.get("image_shape") or ()))
    said = f"{kind} of arrays of {shape}, channels last"
    if data.get("num_classes") and model.get("class_conditional"):
        said += f", told one of {data['num_classes']} classes"
    if model.get("text_layers"):
        said += ", told a text"
    kept = [
        path.name.partition(".")[0] for path in run_dir.checkpoints.glob(CHECKPOINT)
    ]
    step = max((int(name) for name in kept if name.isdigit()), default=None)
    imported = stored.get("imported")
    if isinstance(imported, dict):
        said += f". Its {imported['weights']}, SHA-256 `{imported['sha256']}`"
    elif step is not None:
        said += f". Newest checkpoint: step {step:,} of {config['train']['steps']:,}"
    if stored.get("network") == custom.NOTE:
        said += ". Its network is code of the user's own, which no file here holds"
    return f"{said}. Made with ddpm_jax."


def _commands(run_dir, stored):
    where = shlex.quote(str(run_dir.path.name))
    if stored.get("network") == custom.NOTE:
        return [f"# in Python: ddpm_jax.load({where!r}, network=…).sample(64)"]
    use = [f"{commands.PROGRAM} --workdir={where} --mode=evaluate"]
    if stored["config"].get("model", {}).get("kind") != "classifier":
        use.insert(0, f"{commands.PROGRAM} --workdir={where} --mode=sample")
    return use


def _data(stored):
    data, config = stored["data"], stored["config"].get("data", {})
    names = data.get("class_names") or []
    rows = [
        ("name", config.get("name")),
        ("training examples", data.get("num_examples")),
        ("shape", data.get("shape") or data.get("image_shape")),
        ("grey levels", data.get("levels")),
        ("classes", data.get("num_classes")),
        ("class names", names[: cards_lib.MAX_ITEMS]),
        ("fingerprint", data.get("fingerprint")),
    ]
    return _table(("", ""), [row for row in rows if row[1] not in (None, "", [])])


def _recipe(stored, base):
    """Return the fields that differ from the base: what makes an experiment."""
    usual = history_lib.leaves(json.loads(json.dumps(base, default=list)))
    rows = [
        (f"`{name}`", _code(_without_place(value)), _code(usual.get(name)))
        for name, value in sorted(history_lib.leaves(stored["config"]).items())
        if name.split(".")[0] in (*SECTIONS, "seed") and usual.get(name) != value
    ]
    text = "Fields that differ from `ddpm_jax.config.base()`; config.json has all."
    return f"{text}\n\n{_table(('field', 'value', 'in the base'), rows)}"


def _metrics(cards):
    if not cards.by_name:
        return "Not evaluated yet: `--mode=evaluate` writes its cards here."
    rows, notes = [], []
    for name, card in cards.by_name.items():
        protocol = card.get("protocol")
        protocol = protocol if isinstance(protocol, dict) else {}
        rows.append((card["metric"], _value(card), _protocol(protocol), f"`{name}`"))
        notes += [note for note in protocol.get("notes") or [] if note not in notes]
    head = ("metric", "value", "how it was measured", "evaluation/")
    parts = [_table(head, rows)]
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def _protocol(protocol):
    """Return how a number was measured: `PROTOCOL`, and guidance if there is some."""
    shown = [key for key in PROTOCOL if protocol.get(key) not in EMPTY]
    for key, usual in UNGUIDED.items():
        if key in protocol and protocol[key] != usual:
            shown.append(key)
            scale = f"{key}_scale"
            shown += [scale] if scale in protocol else []
    told = {key: _plain(_without_place(protocol[key])) for key in shown}
    return ", ".join(f"{key.replace('_', ' ')} {told[key]}" for key in shown)


def _value(card):
    value, error, unit = (card.get(k) for k in ("value", "standard_error", "unit"))
    if not history_lib.is_number(value):
        return _plain(value)
    told = f"{value:.4g}"
    if history_lib.is_number(error):
        told = f"{value:.4f} ± {error:.4f}"
    interval = card.get("interval")
    if history_lib.is_numbers(interval) and len(interval) == 2:
        told += f" ({interval[0]:.4g} … {interval[1]:.4g})"
    return f"{told} {unit}".strip() if unit else told


def _pictures(run_dir):
    """Return (title, path in the run) of the newest sheet and training grid."""
    found = []
    sheets = sorted(run_dir.samples.glob("*/grid.png"), key=os.path.getmtime)
    for sheet in sheets[-1:]:
        title = f"Samples, {sheet.parent.name}"
        found.append((title, sheet.relative_to(run_dir.path).as_posix()))
    for step, path in grids.training_frames(run_dir)[-1:]:
        title = f"Samples while training, step {step:,}"
        found.append((title, path.relative_to(run_dir.path).as_posix()))
    return found


def _versions(stored):
    versions = stored.get("versions")
    found = versions.items() if isinstance(versions, dict) else ()
    return ", ".join(f"{name} {version}" for name, version in sorted(found)) or UNKNOWN


def _without_place(value):
    """Return a value without where it lies on somebody's disk: the name of a path.

    The configs of runs have no relative paths.
    """
    if isinstance(value, list | tuple):
        return [_without_place(one) for one in value]
    is_path = isinstance(value, str) and os.path.isabs(value)
    return os.path.basename(os.path.normpath(value)) if is_path else value


def _table(head, rows):
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    lines += [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def _plain(value):
    """Return a cell: in one line, and without a bar, which would end it."""
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = f"{value:,}" if type(value) is int and value > 9999 else str(value)
    return " ".join(text.split()).replace("|", "\\|")


def _code(value):
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + ' …'}`"
