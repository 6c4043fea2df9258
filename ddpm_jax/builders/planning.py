"""What can be known of a run before its data is there and before a step is taken."""

import contextlib
import importlib.util
import math

import jax
import numpy as np

from ddpm_jax.builders import captions
from ddpm_jax.builders import data as data_lib
from ddpm_jax.core import conditions, errors
from ddpm_jax.data import sources, tfds
from ddpm_jax.runtime import cost, hardware, sharding

LEVELS = 256  # grey values of images of 8 bits
CHANNELS = 3
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # how XLA's errors about memory begin
CLASSES = 1000  # ImageNet's; a row of the label embedding more or less weighs nothing


def facts(config) -> tuple[data_lib.DataInfo, str]:
    """Return the facts of the training data, and why they are assumed.

    Where the data is not there they are those of the catalogue of TensorFlow Datasets,
    or else what the config says: `num_examples` is 0 then.

    Returns:
        The facts; "" or the sentence that refused the data.

    Raises:
        Refusal: the data is not there and the size of its images not known.
    """
    try:
        return captions.of_training(config, None)[1], ""
    except errors.Refusal as refusal:
        described = _described(config)
        if described is None:
            raise errors.Refusal(
                f"{refusal}; to plan without the data set data.image_size"
            ) from refusal
        return described, str(refusal)


def _described(config) -> data_lib.DataInfo | None:
    """Return what is known without the data, or None without the size of images."""
    data = config.data
    labelled = config.model.class_conditional or config.model.kind == "classifier"
    classes = CLASSES if labelled else None
    shape, levels, classes = _catalogued(data.name) or ((None,) * 3, LEVELS, classes)
    *size, channels = shape
    size = (data.image_size[0], data.image_size[-1]) if data.image_size else size
    if None in size:
        return None
    return data_lib.DataInfo(
        shape=(*size, data.channels or channels or CHANNELS),
        levels=levels,
        num_examples=0,
        num_classes=classes,
        class_names=tuple(map(str, range(classes or 0))),
        fingerprint="",
    )


def _catalogued(name):
    """Return (image shape, levels, number of classes or None) as TFDS describes it."""
    known = name.removeprefix(sources.TFDS_PREFIX)
    is_of_tfds = known != name or sources.SOURCES.get(name) is tfds.cifar10
    if not is_of_tfds or importlib.util.find_spec("tensorflow_datasets") is None:
        return None
    import tensorflow_datasets

    try:
        features = dict(tensorflow_datasets.builder(known).info.features.items())
    except (tensorflow_datasets.core.DatasetNotFoundError, ValueError):
        return None  # the refusal of the data has told so
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tensorflow_datasets.features.Image):
        return None
    return (
        image.shape,
        int(np.iinfo(image.np_dtype).max) + 1,
        getattr(label, "num_classes", None),
    )


def training_flops(config, facts, network) -> int:
    """Return the FLOPs of training on one image, see `runtime.cost.flops`."""
    return cost.TRAINING_PASSES * cost.forward_flops(
        network.apply,
        network.shapes,
        facts.shape,
        conditions.abstract(network.condition_spec, 1),
        float_timesteps=config.diffusion.rescale_timesteps,
    )


def speed(config, facts, network, device_mesh) -> dict[str, float]:
    """Return what `training.progress.Progress` needs to tell the use of the devices.

    Empty where the peak of the devices is not known, such as that of a CPU.
    """
    kind = device_mesh.devices.flat[0].device_kind
    peak = hardware.peak_flops(kind, config.model.dtype)
    if peak is None:
        return {}
    return {
        "flops_per_image": float(training_flops(config, facts, network)),
        "peak_flops": peak * device_mesh.size,
    }


def check_batch(config, device_mesh) -> None:
    """Refuse a batch that microbatches or devices cannot share equally.

    Raises:
        Refusal: names the nearest numbers that work.
    """
    size, parts = config.train.batch_size, config.train.microbatches
    if size % parts:
        largest = max(n for n in range(1, parts) if size % n == 0)
        raise errors.Refusal(
            f"train.microbatches={parts} does not divide train.batch_size={size}: "
            f"use {largest}"
        )
    sharding.check_batch(device_mesh, size, "train.batch_size")
    sharding.check_batch(
        device_mesh, size // parts, "train.batch_size / train.microbatches"
    )


def state_bytes(abstract) -> dict[str, int]:
    """Return the bytes of a train state on one device, by part.

    Args:
        abstract: from `abstract_state`.
    """
    parts = {
        "parameters": abstract.params,
        "optimizer": abstract.opt_state,
        "averages": abstract.ema,
    }
    return {
        name: sum(map(_held, jax.tree.leaves(tree))) for name, tree in parts.items()
    }


def _held(leaf):
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize


def savings(
    config, device_mesh, *, state: int, temporary: int | None, limit: int | None
) -> list[str]:
    """Return what makes a train step need less memory, the cheapest first.

    Args:
        config: of the run that does not fit.
        device_mesh: its mesh.
        state: bytes of the train state on each device.
        temporary: bytes of activations and buffers, None if not known.
        limit: bytes that a device has, None if not known.
    """
    train, model, devices = config.train, config.model, device_mesh.size
    activations, weights = [], []
    parts = _microbatches(config, devices, state, temporary, limit)
    if parts:
        activations.append(
            f"--config.train.microbatches={parts}: activations of fewer images at a "
            "time, the same gradient"
        )
    if model.dtype != "bfloat16":
        activations.append(
            "--config.model.dtype=bfloat16: half the activations, float32 weights"
        )
    if model.remat != "blocks":
        activations.append(
            "--config.model.remat=blocks: keeps few activations and computes the rest "
            "again, a third more work"
        )
    if device_mesh.shape["fsdp"] < devices:
        weights.append(
            f"--config.mesh.fsdp={devices}: each device keeps a part of the state"
        )
    if train.mu_dtype != "bfloat16":
        weights.append("--config.train.mu_dtype=bfloat16: half of the first moment")
    last = ["more devices, or a smaller network"]
    # Where the state takes most of the memory it is not activations that are too many.
    heavy = limit is not None and state > limit / 2
    return [*weights, *activations, *last] if heavy else [*activations, *weights, *last]


@contextlib.contextmanager
def explaining_memory(config, device_mesh, abstract):
    """Turn JAX's error about memory into one sentence that says what to change.

    Args:
        config: of the run.
        device_mesh: its mesh.
        abstract: from `abstract_state`.

    Raises:
        Refusal: the devices have too little memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if OUT_OF_MEMORY not in str(error):
            raise
        device = device_mesh.devices.flat[0]
        state, limit = (
            sum(state_bytes(abstract).values()),
            hardware.memory_bytes(device),
        )
        advice = savings(config, device_mesh, state=state, temporary=None, limit=limit)
        raise errors.Refusal(
            f"the memory of {device.device_kind} is too small for this run; in this "
            f"order try {' · '.join(advice)} (all but microbatches and fsdp in a new "
            "--workdir; --mode=plan tells the memory beforehand)"
        ) from error


def _microbatches(config, devices, state, temporary, limit):
    """Return the fewest microbatches, more than now, that may fit; 0 without any."""
    now = config.train.microbatches
    rows = config.train.batch_size // devices  # images on each device
    choices = [parts for parts in range(now + 1, rows + 1) if rows % parts == 0]
    if temporary is None or limit is None:
        return choices[0] if choices else 0
    # Activations shrink with the images at a time; other buffers do not.
    fitting = (n for n in choices if state + temporary * now / n < limit)
    return next(fitting, choices[-1] if choices else 0)
