"""What is known of a weight format: one record, see `formats`."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ddpm_jax.convert import mapping

Fields = Mapping[str, Any]
"""Values by dotted config name, and "facts.…" beside them."""
Shapes = Mapping[str, tuple[int, ...]]

HEADS = ("model.num_heads", "model.head_channels")
NEEDED = {
    # Fields that no shape tells → their usual values.
    "data.image_size": "64, or 64,96 for height,width",
    "model.num_heads": "4 (Improved DDPM), or --config.model.head_channels=64 (ADM)",
    "model.head_channels": "64 (of the attention pool)",
    "model.text_heads": "8 (GLIDE), heads of the text encoder",
    "model.qkv_order": "legacy (all published models but one) or new (ADM 64x64)",
    "model.num_res_blocks": "residual blocks of a level",
    "model.channel_mult": "width of each level, as 1,2,3,4",
    "diffusion.schedule": "linear, linear_fixed, cosine, … as in its training",
    "diffusion.num_steps": "1000 (DDPM, ADM), 4000 (Improved DDPM)",
    "diffusion.rescale_timesteps": "True or False (Improved DDPM's flag, default True)",
    "diffusion.prediction": "noise (all published models), x_0, x_prev or v",
    "diffusion.variance": "fixed_large or fixed_small",
}


def image_size(fields: Fields) -> tuple[int, int]:
    """Return (height, width)."""
    size = tuple(fields["data.image_size"])
    return size * 2 if len(size) == 1 else size


@dataclasses.dataclass(frozen=True)
class Content:
    """What an exported file is made of.

    Attributes:
        tensors: float32 arrays under the names of the format.
        fields: the config that they belong to.
        image_shape: (H, W, C).
        provenance: where the weights come from.
    """

    tensors: dict[str, np.ndarray]
    fields: Fields
    image_shape: tuple[int, int, int]
    provenance: Mapping[str, Any]


def accept(fields: Fields, image_shape: tuple[int, int, int]) -> None:
    """Accept whatever is to be exported."""
    del fields, image_shape


@dataclasses.dataclass(frozen=True)
class Export:
    """How a format is written.

    Attributes:
        name: of --format.
        suffix: what the name of a file must end in, "" for a folder.
        save: writes a `Content` to a path and returns sentences on its use.
        check: `(fields, image_shape)`; refuses what the format cannot express.
        splits_qkv: whether queries, keys and values are tensors of their own.
    """

    name: str
    suffix: str
    save: Callable[[pathlib.Path, Content], tuple[str, ...]]
    check: Callable[[Fields, tuple[int, int, int]], None] = accept
    splits_qkv: bool = False


@dataclasses.dataclass(frozen=True)
class Format:
    """One way in which a code stores the weights of a network.

    Attributes:
        name: in `formats.FORMATS` and in import records.
        about: what a file is called in messages.
        recognise: `shapes → fields` that the tensors tell; of a format with a `header`
            what the header tells.
        entries: `(our shapes, fields)` → where each of our parameters stands.
        marks: sets of tensor names, each of which marks a network of this format.
        header: entry of a file's metadata that marks it and says everything.
        present_name: tensor name of any version of the code → the present name.
        present_shapes: shapes of any version of the code → the present shapes.
        read_configs: `(source, findings) → levels with attention`, from the JSON beside
            the file.
        code: whose word `dialect` is, as "the OpenAI code".
        dialect: fields that all networks of the code share and no shape tells.
        usual: `fields → (fields, whose word they are)`, what most networks share.
        needed: fields that must be given where nothing tells them → usual values.
        reference: `(source, fields, inputs)` → the output of a PyTorch forward pass.
        output: `network → (params, x, t, condition)` → what is compared with it.
        export: how it is written; None for a format that is only read.
    """

    name: str
    about: str
    recognise: Callable[[Mapping[str, Any]], dict[str, Any]]
    entries: Callable[[Shapes, Fields], list[mapping.Entry]]
    marks: tuple[frozenset[str], ...] = ()
    header: str = ""
    present_name: Callable[[str], str] = str
    present_shapes: Callable[[Shapes], dict[str, tuple[int, ...]]] = dict
    read_configs: Callable | None = None
    code: str = ""
    dialect: Fields = dataclasses.field(default_factory=dict)
    usual: Callable[[Fields], tuple[Fields, str]] = lambda fields: ({}, "")
    needed: Mapping[str, str] = dataclasses.field(default_factory=lambda: NEEDED)
    reference: Callable | None = None
    output: Callable = lambda network: network.apply
    export: Export | None = None
