"""A second opinion on an import: PyTorch on the file against our network on its map."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ddpm_jax.convert.format import image_size
from ddpm_jax.convert.formats import FORMATS
from ddpm_jax.models import clip, functional

ABSOLUTE = 2e-5
RELATIVE = 1e-4
"""What float32 rounding may leave: |ours − theirs| ≤ 2e-5 + 1e-4·|theirs|."""

IMAGES = 2
TIMESTEPS = (321, 7)  # one a batch entry: much noise, little noise
SMALLEST_MAP = 3
"""Pixels of a side: attention over a single one would test nothing, and of kernels
larger than their map XLA makes copies, which for large networks is a lot of memory."""


@dataclasses.dataclass(frozen=True)
class Certificate:
    """How far two codes that share nothing disagree on the same weights.

    Attributes:
        max_abs_difference: over all outputs; None where it could not be made.
        max_abs_reference: largest output of PyTorch.
        within_tolerance: whether every output is.
        image_shape: (H, W, C) of the random input.
        torch_version: of the PyTorch that ran.
        reason: why it could not be made.
    """

    max_abs_difference: float | None = None
    max_abs_reference: float | None = None
    within_tolerance: bool | None = None
    image_shape: tuple[int, ...] | None = None
    torch_version: str | None = None
    reason: str = ""

    @property
    def acceptable(self) -> bool:
        """Whether nothing speaks against the import: agreement, or no opinion."""
        return self.within_tolerance is not False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return dataclasses.asdict(self)

    def sentence(self) -> str:
        """Return the certificate in words."""
        if self.within_tolerance is None:
            return f"no parity certificate: {self.reason}"
        verb = "agrees" if self.within_tolerance else "DISAGREES"
        size = "×".join(map(str, self.image_shape[:2]))
        return (
            f"parity certificate: our network {verb} with PyTorch {self.torch_version} "
            f"on the file's own tensors, max |difference| "
            f"{self.max_abs_difference:.1e} of max |output| "
            f"{self.max_abs_reference:.2g} ({IMAGES} random {size} inputs; allowed "
            f"{ABSOLUTE:.0e} + {RELATIVE:.0e}·|output|)"
        )


def small_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields with the smallest image that tests every layer.

    A U-Net is convolutional: the network of these fields has the same parameters. A
    256×256 one is certified at 96×96, seven times cheaper. Classifiers and CLIP keep
    their size, which an attention's positions depend on.
    """
    if fields["model.kind"] == "clip":
        return dict(fields)
    size = image_size(fields)
    levels = len(fields["model.channel_mult"])
    side = SMALLEST_MAP * 2 ** (levels - 1)
    if fields["model.kind"] == "classifier" or min(size) <= side:
        return dict(fields)
    level_of = {min(size) // 2**level: level for level in range(levels)}
    return {
        **fields,
        "data.image_size": (side, side),
        "model.attention_resolutions": tuple(
            side // 2 ** level_of[resolution]
            for resolution in fields["model.attention_resolutions"]
        ),
    }


def certify(
    opened,
    fields: Mapping[str, Any],
    network: functional.Network,
    params: functional.Params,
    *,
    seed: int = 0,
) -> Certificate:
    """Run a file's weights in PyTorch and ours in JAX on one random input.

    What neither tensors nor the source's JSON tell (heads and their packing in OpenAI's
    files) both take from `fields`: the certificate vouches for the map, not for them.

    Args:
        opened: the source, see `open.Source`.
        fields: values by dotted config name that `network` was built from; better
            those of `small_fields`.
        network: ours.
        params: what the import map made of the tensors.
        seed: of the input.
    """
    record = FORMATS[opened.format]
    if record.reference is None:
        return Certificate(reason=f"{record.name} weights have no other code")
    try:
        import torch
    except ImportError:
        return Certificate(
            reason="PyTorch is not installed; pip install 'ddpm-jax[convert]'"
        )
    inputs = _inputs(fields, seed)
    with torch.no_grad():
        reference = record.reference(
            opened, fields, {name: _theirs(torch, x) for name, x in inputs.items()}
        )
    theirs = reference.numpy()
    if theirs.ndim == 4:
        theirs = theirs.transpose(0, 2, 3, 1)
    ours = _ours(record.output(network), params, inputs)
    difference = np.abs(ours - theirs)
    within = difference <= ABSOLUTE + RELATIVE * np.abs(theirs)
    return Certificate(
        max_abs_difference=float(difference.max()),
        max_abs_reference=float(np.abs(theirs).max()),
        within_tolerance=bool(within.all()),
        image_shape=inputs["x"].shape[1:],
        torch_version=torch.__version__,
    )


def _ours(output, params, inputs):
    """Return the output of our network, in float32 indeed, one image at a time.

    `output` is `(params, x, t, condition) → array`. The room that convolutions need
    beside large weights grows with the batch.
    """
    # Run once, so compiling in haste is faster.
    options = {"xla_backend_optimization_level": 0}
    apply = jax.jit(output, compiler_options=options)
    singles = (
        {name: array[i : i + 1] for name, array in inputs.items()}
        for i in range(IMAGES)
    )
    # Accelerators multiply in less than float32 unless told otherwise.
    with jax.default_matmul_precision("highest"):
        return np.concatenate([apply(params, **_arguments(s)) for s in singles])


def _arguments(inputs):
    """Return the inputs as `Network.apply` takes them."""
    names = {"labels": "label"}
    condition = {
        names.get(name, name): array
        for name, array in inputs.items()
        if name not in ("x", "t")
    }
    return {"x": inputs["x"], "t": inputs["t"], "condition": condition}


def _inputs(fields, seed):
    """Return images, timesteps, and what else the network reads."""
    rng = np.random.default_rng(seed)
    shape = (IMAGES, *image_size(fields), fields["data.channels"])
    inputs = {
        "x": rng.normal(size=shape).astype(np.float32),
        "t": np.asarray(TIMESTEPS, np.int32),
    }
    if fields["model.kind"] == "upsampler":
        inputs["low_res"] = rng.normal(size=shape).astype(np.float32)
    if fields.get("model.class_conditional"):
        rows = fields["facts.num_classes"]
        inputs["labels"] = rng.integers(0, rows, IMAGES).astype(np.int32)
    if fields.get("model.inpainting"):
        inputs["known"] = rng.normal(size=shape).astype(np.float32)
        mask = rng.integers(0, 2, (*shape[:-1], 1))
        inputs["known_mask"] = mask.astype(np.float32)
    if fields["model.kind"] == "clip":
        texts = (IMAGES, fields["model.text_context"])
        tokens = rng.integers(0, fields["model.text_vocabulary"], texts)
        inputs[clip.TOKENS] = tokens.astype(np.int32)
        inputs[clip.LENGTH] = np.array([texts[1], texts[1] // 3], np.int32)
    elif fields.get("model.text_layers"):
        texts = (IMAGES, fields["model.text_context"])
        tokens = rng.integers(0, fields["model.text_vocabulary"], texts)
        inputs["tokens"] = tokens.astype(np.int32)
        lengths = np.array([texts[1], texts[1] // 3])  # one is full, one is padded
        inputs["token_mask"] = np.arange(texts[1]) < lengths[:, None]
    return inputs


def _theirs(torch, array):
    if array.ndim == 4:
        array = np.ascontiguousarray(array.transpose(0, 3, 1, 2))
    return torch.from_numpy(array).to(torch.float32 if array.ndim == 4 else torch.int64)
