"""How a file differs from a network, so that a reader knows which field to change.

A difference is a tensor's key with (our shape, their shape), None where it is missing.
"""

import collections
import math
from collections.abc import Callable, Iterable, Mapping

Shape = tuple[int, ...]
Pair = tuple[Shape | None, Shape | None]

SHOWN = 12
"""Lines of the table; published networks have hundreds of tensors."""


TORN = (
    "no field can, where a layer is there in part: the file is damaged or was edited, "
    "fetch it again"
)


def complaint(
    differing: Mapping[str, Pair],
    fields: Mapping[str, object],
    alike: Iterable[str] = (),
) -> str:
    """Return what differs, as a table grouped by block, and what would explain it.

    Args:
        differing: (shape the network needs, shape in the file) by key, None where one
            side has no such tensor.
        fields: values by dotted config name, quoted beside the explanations.
        alike: the keys that do not differ.
    """
    layers = {_layer(key) for key in alike}
    torn = {
        key for key, pair in differing.items() if None in pair and _layer(key) in layers
    }
    loose = _loose(differing) - torn
    explained = {
        key: pair for key, pair in differing.items() if key not in torn | loose
    }
    extra = sum(ours is None for ours, _ in differing.values())
    missing = sum(theirs is None for _, theirs in differing.values())
    reasons = [TORN] if torn else []
    if loose:
        shown = ", ".join(sorted(loose)[:SHOWN])
        reasons.append(
            f"no field can for {shown}, which make no block: extra tensors beside the "
            "network; take them out of the file if the network does not need them"
        )
    if explained:
        other = ["other --config.model fields"]
        reasons += explanations(explained, fields) or other
    return (
        f"the file is not the configured network: {missing} tensors of the network are "
        f"missing, {extra} of the file have no place, "
        f"{len(differing) - extra - missing} differ in shape\n"
        f"{table(differing)}\n"
        f"what would explain it: {'; '.join(reasons)}"
    )


def _loose(differing):
    """Return extra tensors that are no block, which always has several layers."""
    layers = collections.defaultdict(set)
    for key, (ours, _) in differing.items():
        if ours is None:
            layers[_block(key)].add(_layer(key))
    return {
        key
        for key, (ours, _) in differing.items()
        if ours is None and len(layers[_block(key)]) == 1 and _reason(key) is _of_block
    }


def table(differing: Mapping[str, Pair]) -> str:
    """Return the differences as aligned lines, one for the alike ones of a block."""
    groups = collections.defaultdict(list)
    for key, (ours, theirs) in differing.items():
        groups[_block(key), ours is None, theirs is None].append((key, ours, theirs))
    rows = [("block", "tensor", "network", "file")]
    for (block, _, _), members in groups.items():
        # The weight says more than the bias.
        key, ours, theirs = max(members, key=lambda m: len(m[1] or m[2] or ()))
        more = f" and {len(members) - 1} more" if len(members) > 1 else ""
        name = key.removeprefix(block).lstrip("./")
        rows.append((block, name + more, _text(ours), _text(theirs)))
    shown, left = rows[: SHOWN + 1], len(rows) - SHOWN - 1
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [f"  {'  '.join(map(str.ljust, row, widths)).rstrip()}" for row in shown]
    return "\n".join(lines + ([f"  … and {left} lines more"] if left > 0 else []))


def _layer(key):
    """Return a key without the name of its tensor, e.g. "weight"."""
    return key.rpartition("/" if "/" in key else ".")[0]


def _block(key):
    """Return a key's first parts, e.g. "input_blocks.3.0", never its last."""
    separator = "/" if "/" in key else "."
    return separator.join(key.split(separator)[:-1][:3])


def _text(shape):
    return "–" if shape is None else "×".join(map(str, shape)) or "a number"


# ---- explaining ----------------------------------------------------------------------


def explanations(
    differing: Mapping[str, Pair], fields: Mapping[str, object]
) -> list[str]:
    """Return the fields that the differences point at, each with what would fit."""
    found, strided = {}, set()
    for key, (ours, theirs) in differing.items():
        explain = _reason(key)
        field, value = explain(ours, theirs)
        if field is not None and value != f"= {fields.get(field)!r}":
            here = f" (now {fields[field]!r})" if field in fields else ""
            found.setdefault(field, f"{field} {value}{here}")
        if explain is _of_strided:
            strided.add((ours is None, theirs is None))
    if {(True, False), (False, True)} <= strided:
        # Every block has another number; what stands in its place says nothing.
        return [found[DEPTH]] if DEPTH in found else list(found.values())
    if "model.resblock_updown" in found:  # whose blocks only seem too many
        found.pop(DEPTH, None)
    return list(found.values())


def _reason(key):
    """Return what explains a difference of this tensor."""
    return next(f for parts, f in REASONS if any(p in key for p in parts))


DEPTH = "model.num_res_blocks"
NOTHING = (None, None)


def _of_labels(ours, theirs):
    if ours is None:
        return "model.class_conditional", "= True"
    if theirs is None:
        return "model.class_conditional", "= False"
    return "facts.num_classes", f"= {theirs[0]}"


def _of_embedding(ours, theirs):
    rows = _rows(ours, theirs)
    if rows and rows[1] == 2 * rows[0]:
        return "model.scale_shift", "= True"
    if rows and rows[0] == 2 * rows[1]:
        return "model.scale_shift", "= False"
    return _of_block(ours, theirs)


def _of_strided(ours, theirs):
    if ours is None:
        return "model.resblock_updown", "= False with model.resample = 'conv'"
    if theirs is None:
        return "model.resblock_updown", "= True, or model.resample = 'pool'"
    return _of_width(ours, theirs)


def _of_attention(ours, theirs):
    if ours is None or theirs is None:
        return "model.attention_resolutions", "with other levels"
    return _of_width(ours, theirs)


def _of_first(ours, theirs):
    rows = _rows(ours, theirs)
    if rows and rows[1] == 2 * rows[0]:
        return "model.kind", "= 'upsampler'"
    if rows and rows[0] == 2 * rows[1]:
        return "model.kind", "= 'unet'"
    return _of_width(ours, theirs)


def _of_last(ours, theirs):
    rows = _rows(ours, theirs)
    if rows and rows[1] == 2 * rows[0]:
        return "diffusion.variance", "= 'learned_range'"
    if rows and rows[0] == 2 * rows[1]:
        return "diffusion.variance", "= 'fixed_small' or 'fixed_large'"
    return _of_width(ours, theirs)


def _of_pool(ours, theirs):
    del ours, theirs
    return "model.pool", "of another kind, or another data.image_size"


def _of_block(ours, theirs):
    if ours is None or theirs is None:
        return DEPTH, "or the length of model.channel_mult"
    return _of_width(ours, theirs)


def _of_width(ours, theirs):
    rows = _rows(ours, theirs)
    if rows is None:
        return NOTHING
    if math.gcd(*rows) < min(rows):
        return "model.channel_mult", "with other entries"
    return "model.channels", "or the entries of model.channel_mult"


def _rows(ours, theirs):
    """Return both lengths of the first axis that differs, or None."""
    if ours is None or theirs is None or len(ours) != len(theirs):
        return None
    return next(p for p in zip(ours, theirs, strict=True) if p[0] != p[1])


REASONS: tuple[tuple[tuple[str, ...], Callable], ...] = (
    # Parts of a key, and what a difference there means; the first that fits counts.
    (("label_emb", "class_embedding"), _of_labels),
    (("emb_layers", "time_emb_proj", "temb_proj"), _of_embedding),
    ((".op.", "downsample"), _of_strided),
    # Of the decoder; the encoder tells the same with fewer causes.
    (("upsample", ".1.conv.", ".2.conv."), _of_width),
    (("out.2.pos", "out.2.qkv_proj", "out.2.c_proj", "out.3", "out.1"), _of_pool),
    (("qkv", "proj_out", ".1.norm.", "attentions", "attn"), _of_attention),
    (("input_blocks.0.0", "conv_in"), _of_first),
    (("out.2.", "conv_out"), _of_last),
    (("",), _of_block),
)
