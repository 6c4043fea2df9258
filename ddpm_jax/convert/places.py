"""Which files a path means: weights in one file or in shards, and the JSON beside."""

import json
import pathlib
import re

from ddpm_jax.convert import readers
from ddpm_jax.core import errors

STEM = "diffusion_pytorch_model"
WEIGHTS = re.compile(
    # diffusion_pytorch_model[.variant].safetensors[.index[.variant].json]
    rf"{STEM}(?:\.(?P<variant>[\w.]+?))?\.(?P<suffix>safetensors|bin)"
    r"(?P<index>\.index(?:\.(?P<late>[\w.]+?))?\.json)?"
)
INDEX = re.compile(r".*\.index(\.[\w.]+)?\.json")
SHARD = re.compile(r"-\d{5}-of-\d{5}(?=\.)")
AVERAGED_FOLDER = "unet_ema"
FOLDERS = (AVERAGED_FOLDER, "unet", "")
"""Where a diffusers folder or one of accelerate has its weights, the best first."""


def entry_of(path: str | pathlib.Path) -> tuple[pathlib.Path, str | None]:
    """Return the path and the entry that `file.pt#entry` names, None for none."""
    whole = pathlib.Path(path).expanduser()
    before, mark, entry = str(whole).rpartition("#")
    if whole.exists() or not mark or not pathlib.Path(before).exists():
        return whole, None
    return pathlib.Path(before), entry


def weights_of(path: pathlib.Path) -> tuple[pathlib.Path, list[str]]:
    """Return the file of weights, or the index of its shards, that a path means.

    Beside it: notes on what was taken rather than what.

    Raises:
        Refusal: there is nothing, or no model in the folder.
    """
    if not path.exists():
        raise errors.Refusal(
            f"source {str(path)!r} does not exist: give a checkpoint file, a folder "
            "that diffusers saved or the prefix of a TensorFlow checkpoint"
        )
    if path.is_file():
        return _whole(path)
    found = {name: _best(path / name) for name in FOLDERS}
    found = {name: best for name, best in found.items() if best}
    if found:
        folder, (file, notes) = next(iter(found.items()))
        return file, [*notes, *_of_folders(path / folder)]
    there = sorted(
        file.name for file in path.iterdir() if file.suffix in readers.SUFFIXES
    )
    advice = f"give one of its files: {', '.join(there)}" if there else "look elsewhere"
    raise errors.Refusal(
        f"folder {str(path)!r} holds no diffusers model (unet/config.json with "
        f"unet/{STEM}.safetensors): {advice}"
    )


def _whole(path):
    """Return the index of the shards that a file is one of, or the file."""
    if not SHARD.search(path.name):
        return path, []
    stem = SHARD.sub("", path.name)
    names = {f"{stem}.index.json"}
    if match := WEIGHTS.fullmatch(stem):
        variant = f".{match['variant']}" if match["variant"] else ""
        names.add(f"{STEM}.{match['suffix']}.index{variant}.json")
    for name in sorted(names):
        if (path.parent / name).is_file():
            return path.parent / name, [f"{path.name} is a part of {name}: all taken"]
    raise errors.Refusal(
        f"{path} is a part of several and {stem}.index.json, which lists them, is not "
        "beside it: fetch that and the other parts too"
    )


def _best(folder):
    """Return (the best of a model's weights in a folder, notes), or None."""
    if not (folder / "config.json").is_file():
        return None
    ranked = sorted(
        (_rank(match), file)
        for file in folder.iterdir()
        if (match := WEIGHTS.fullmatch(file.name))
    )
    if not ranked:
        return None
    (rank, best), *others = ranked
    listed = ", ".join(file.name for _, file in others)
    if rank[0] == AVERAGED and others:
        return best, [f"took {best.name}, the average (EMA), rather than {listed}"]
    if rank[0] == RAW:
        return best, [f"{best.name} are raw weights; no average of them is beside them"]
    return best, []


AVERAGED, PLAIN, RAW = range(3)


def _rank(match):
    """Return what sorts files of weights, the best first."""
    parts = re.split(r"[._]", match["variant"] or match["late"] or "")
    of_ema = PLAIN
    if "ema" in parts:
        of_ema = RAW if "non" in parts else AVERAGED
    other = sorted(set(parts) - {"ema", "non", "", "fp32"})
    return of_ema, bool(other), other, match["suffix"] == "bin", bool(match["index"])


def _of_folders(folder):
    """Return a note where raw and averaged weights lie in folders side by side."""
    if folder.name == AVERAGED_FOLDER and (folder.parent / "unet").is_dir():
        return [
            f"took {AVERAGED_FOLDER}/, the average (EMA), rather than unet/, the raw "
            "weights"
        ]
    averaged = folder.parent / AVERAGED_FOLDER
    if folder.name == "unet" and averaged.is_dir():
        return [f"these are the raw weights; their average lies in {averaged}"]
    return []


def configs(folder: pathlib.Path) -> dict[str, dict]:
    """Return the JSON of a diffusers model whose weights lie in `folder`.

    Raises:
        Refusal: a file is no JSON.
    """
    places = {
        "config.json": (folder,),
        "scheduler_config.json": (
            folder,
            folder / "scheduler",
            folder.parent / "scheduler",
        ),
    }
    found = {}
    for name, folders in places.items():
        for place in folders:
            if (place / name).is_file():
                found[name] = read_json(place / name)
                break
    return found


def read_json(path: pathlib.Path) -> dict:
    """Return what a file of JSON holds.

    Raises:
        Refusal: it is none, or holds no keys.
    """
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise errors.Refusal(f"{path} is not JSON ({error}): fetch it again") from error
    if not isinstance(found, dict):
        raise errors.Refusal(
            f"{path} holds a JSON {type(found).__name__} where keys with values, "
            "{…}, are expected: fetch the file that save_pretrained wrote"
        )
    return found


def beside(path: pathlib.Path) -> list[str]:
    """Return a note where raw and averaged weights of one step lie together."""
    step = re.search(r"(\d{4,})\.pt$", path.name)
    if not step or not re.match(r"(model|ema_)", path.name):
        return []
    averages = sorted(path.parent.glob(f"ema_*_{step[1]}.pt"))
    raw = path.parent / f"model{step[1]}.pt"
    if path == raw and averages:
        return [
            f"these are the raw weights of step {int(step[1])}; their average, which "
            f"the papers sample from, lies beside them: {averages[0].name}"
        ]
    if path in averages and raw.exists():
        return [f"these are averaged weights (EMA), not the raw ones of {raw.name}"]
    return []


def tensorflow_prefix(path: pathlib.Path) -> pathlib.Path | None:
    """Return the prefix of a TensorFlow checkpoint that a path means, or None.

    Raises:
        Refusal: a folder holds several.
    """
    if path.is_dir():
        indices = sorted(path.glob("*.index"))
        if len(indices) > 1:
            listed = ", ".join(index.stem for index in indices)
            raise errors.Refusal(
                f"folder {str(path)!r} holds several TensorFlow checkpoints: give one "
                f"of {listed}"
            )
        return indices[0].with_suffix("") if indices else None
    prefix = re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", str(path))
    found = pathlib.Path(prefix + ".index").is_file()
    return pathlib.Path(prefix) if found else None
