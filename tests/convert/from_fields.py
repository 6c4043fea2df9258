"""Networks built from recognised fields, as a run builds them."""

import gzip
import json
import pathlib

import jax.numpy as jnp
import numpy as np

from ddpm_jax import config
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.convert import mapping
from ddpm_jax.convert import open as open_lib
from ddpm_jax.convert.formats import FORMATS, openai
from ddpm_jax.models import functional

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
NETWORKS = {}


def published_tensors():
    """Return flags, parameters and shapes by key of published checkpoints by name."""
    text = gzip.decompress((GOLDEN / "published_checkpoints.json.gz").read_bytes())
    entries = json.loads(text)
    for entry in entries.values():
        entry["tensors"] = {key: tuple(shape) for key, shape in entry["tensors"]}
    return entries


def network_of(fields):
    """Return the network that a run with these fields has, built once."""
    key = repr(sorted(fields.items()))
    if key not in NETWORKS:
        NETWORKS[key] = built(fields)
    return NETWORKS[key]


def built(fields):
    settings = config.base()
    for name, value in fields.items():
        section, _, leaf = name.partition(".")
        if section != "facts":
            settings[section][leaf] = value
    classes = fields.get("facts.num_classes")
    facts = build_data.DataInfo(
        shape=(*fields["data.image_size"], fields["data.channels"]),
        levels=256,
        num_examples=0,
        num_classes=classes,
        class_names=(),
        fingerprint="",
    )
    return build_network.network(settings, facts)


def shapes_of(net):
    """Return the shape of every parameter by path."""
    return {path: leaf.shape for path, leaf in functional.by_path(net.shapes).items()}


def their_shapes(format_name, our_shapes, fields):
    """Return the shapes of a file of this format."""
    found = {}
    for entry in FORMATS[format_name].entries(our_shapes, fields):
        found |= mapping.their_shapes(entry, our_shapes[entry.path])
    return found


def imported(source, net, fields):
    """Return the parameters of a network from a file, as a nested dictionary."""
    our_shapes = shapes_of(net)
    entries = FORMATS[source.format].entries(our_shapes, fields)
    mapping.check(entries, our_shapes, source.shapes, fields)
    tree = {}
    for entry in entries:
        *parents, leaf = entry.path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = jnp.asarray(mapping.to_ours(entry, source.tensors))
    return tree


def random_tensors(shapes, seed=0):
    """Return small float32 arrays of these shapes."""
    rng = np.random.default_rng(seed)
    return {key: rng.normal(0, 0.1, s).astype(np.float32) for key, s in shapes.items()}


BASE = {
    **openai.DIALECT,
    "data.image_size": (32, 32),
    "data.channels": 3,
    "model.kind": "unet",
    "model.channels": 32,
    "model.channel_mult": (1, 2, 2),
    "model.num_res_blocks": 2,
    "model.attention_resolutions": (16, 8),
    "model.num_heads": 2,
    "model.head_channels": 0,
    "model.scale_shift": True,
    "model.resblock_updown": True,
    "model.resample": "conv",
    "model.class_conditional": False,
    "diffusion.variance": "fixed_large",
}


def source(format_name, shapes, path="somewhere/model.pt", **configs):
    """Return a source with shapes and no numbers, which recognising never reads."""
    return open_lib.Source(
        path=pathlib.Path(path),
        format=format_name,
        tensors={},
        shapes=dict(shapes),
        dtypes={},
        configs=configs,
        sha256="",
        bytes=0,
        notes=[],
    )


def of_fields(format_name, fields, **options):
    """Return a source with the tensors of the network of some fields."""
    our_shapes = shapes_of(network_of(fields))
    return source(format_name, their_shapes(format_name, our_shapes, fields), **options)
