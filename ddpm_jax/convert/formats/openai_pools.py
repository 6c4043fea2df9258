"""Heads of ADM's noisy classifiers: how they pool the maps of the encoder.

Reference: guided-diffusion, the published code.
"""

import math
from collections.abc import Iterable, Mapping

from ddpm_jax.convert import mapping
from ddpm_jax.core import errors

POOLS = {
    # model.pool → where each module of the head stands and how its kernel turns.
    "attention": {
        "pool/norm": ("out.0", "copy"),
        "pool/positional_embedding": ("out.2.positional_embedding", "transpose"),
        "pool/qkv": ("out.2.qkv_proj", "conv1d"),
        "pool/proj_out": ("out.2.c_proj", "conv1d"),
    },
    "adaptive": {
        "pool/norm": ("out.0", "copy"),
        "pool/proj_out": ("out.3", "conv1x1"),
    },
    "spatial": {
        "pool/dense_1": ("out.0", "transpose"),
        "pool/dense_2": ("out.2", "transpose"),
    },
    "spatial_v2": {
        "pool/dense_1": ("out.0", "transpose"),
        "pool/norm": ("out.1", "copy"),
        "pool/dense_2": ("out.3", "transpose"),
    },
}


def entries(paths: Iterable[str]) -> list[mapping.Entry]:
    """Return the map of a classifier's head, whose modules tell its kind."""
    modules = {_module_of(path) for path in paths}
    if not modules:
        return []
    places = next(table for table in POOLS.values() if table.keys() == modules)
    found = []
    for path in paths:
        key, rule = places[_module_of(path)]
        if path != "pool/positional_embedding":
            key += ".bias" if path.endswith("/bias") else ".weight"
        rule = "copy" if path.endswith("/bias") else rule
        found.append(mapping.Entry(path, (key,), rule))
    return found


def _module_of(path):
    return "/".join(path.split("/")[:2])


def recognise(
    shapes: Mapping[str, tuple[int, ...]], fields: Mapping[str, object]
) -> dict[str, object]:
    """Return pool and classes, and the image size where the attention pool tells it."""
    if "out.2.positional_embedding" in shapes:
        pool, last = "attention", "out.2.c_proj.weight"
    elif len(shapes.get("out.3.weight", ())) == 4:
        pool, last = "adaptive", "out.3.weight"
    elif "out.3.weight" in shapes:
        pool, last = "spatial_v2", "out.3.weight"
    else:
        pool, last = "spatial", "out.2.weight"
    if last not in shapes:
        raise errors.Refusal(
            f"the classifier's head has no {last}: its pool is none of "
            f"{', '.join(POOLS)}, or the file is cut short"
        )
    found = {"model.pool": pool, "facts.num_classes": shapes[last][0]}
    if pool == "attention" and "model.channel_mult" in fields:
        pixels = shapes["out.2.positional_embedding"][1] - 1  # one token is the mean
        side = math.isqrt(pixels) * 2 ** (len(fields["model.channel_mult"]) - 1)
        found["data.image_size"] = (side, side)
    return found
