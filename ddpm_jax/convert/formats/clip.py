"""State dicts of GLIDE's noised CLIP: a file of the image encoder, one of the text's.

Reference: GLIDE (Nichol et al. 2021), published code.
"""

from collections.abc import Mapping

from ddpm_jax.convert import mapping

Shape = tuple[int, ...]

OUTSIDE = {
    # Module beside the blocks → (theirs within "blocks.", how a kernel turns).
    "timesteps/embedding": ("input.w_t", "copy"),
    "patches/kernel": ("input.patch_proj", "conv"),
    "tokens/embedding": ("input.w_voc", "copy"),
    "positions/embedding": ("input.w_pos", "copy"),
    "norm_in/scale": ("input.ln.g", "copy"),
    "norm_in/bias": ("input.ln.b", "copy"),
    "norm_out/scale": ("output.ln.g", "copy"),
    "norm_out/bias": ("output.ln.b", "copy"),
    "project/kernel": ("output.f.w", "transpose"),
}
OF_BLOCKS = {
    # Module of a block of ours → theirs.
    "norm_1": "f_attn.ln",
    "query": "f_attn.f_q",
    "key": "f_attn.f_k",
    "value": "f_attn.f_v",
    "project": "f_attn.f_c",
    "norm_2": "f_mlp.ln",
    "dense_1": "f_mlp.f_1",
    "dense_2": "f_mlp.f_2",
}
LEAVES = {"kernel": "w", "scale": "g", "bias": "b"}


def entries(part: str, our_shapes: Mapping[str, Shape]) -> list[mapping.Entry]:
    """Return the map of one of the two files.

    Args:
        part: "image" or "text".
        our_shapes: shape of every parameter of `models.clip.clip` by path; those of the
            other part are passed over.
    """
    paths = [path for path in our_shapes if path.startswith(f"{part}/")]
    return [
        mapping.Entry(path, *_place(path.removeprefix(f"{part}/"))) for path in paths
    ]


def _place(path):
    if path in OUTSIDE:
        key, rule = OUTSIDE[path]
        return (f"blocks.{key}",), rule
    _, number, module, leaf = path.split("/")
    key = f"blocks.block_{number}.{OF_BLOCKS[module]}.{LEAVES[leaf]}"
    return (key,), "transpose" if leaf == "kernel" else "copy"
