"""The schema of a run: every field once, with its meaning, unit and source.

A file in `configs/` starts from `base()` and changes what its experiment changes. Below
`builders` no function reads a config.
"""

import contextlib
import difflib
import importlib.util
import pathlib
import sys
from typing import Any

import numpy as np
from ml_collections import config_dict

from ddpm_jax.core import errors


def base() -> config_dict.ConfigDict:  # noqa: PLR0915 - one statement a field
    """Return the configuration that every experiment is a small difference of."""
    config = config_dict.ConfigDict()
    config.seed = 0  # 0 … 2³²−1; decides weights, data order and every draw

    config.data = data = config_dict.ConfigDict()
    data.name = "digits"  # a key of data.sources.SOURCES, or tfds:<name>
    data.path = ""  # where a data set lies on disk; "" for its usual place
    data.image_size = ()  # (side,) or (height, width); () for the data's own
    data.channels = 0  # 0 for the data's own
    data.labels = "auto"  # of folder, zip: folders, prefix, none, or a CSV file's path
    data.test_fraction = 0.2  # of sources that come without a test split
    data.flip = False  # mirror images left-right with probability ½ in training
    data.crop = "center"  # how images are cut to size: none, center, random (ADM)
    data.cache_gib = (
        4.0  # memory for decoded images; what does not fit is decoded again
    )

    config.model = model = config_dict.ConfigDict()
    model.channels = 128  # width at full resolution
    model.channel_mult = (1, 2, 2, 2)  # width of each level; one downsampling between
    model.num_res_blocks = 2  # of each level
    model.attention_resolutions = (16,)  # shorter sides of maps with self-attention
    model.num_heads = 4  # attention heads, where head_channels is 0
    model.head_channels = 0  # channels of a head; 0 uses num_heads instead
    model.norm_groups = 32  # of GroupNorm
    model.scale_shift = True  # AdaGN; False adds the time embedding (DDPM)
    model.resblock_updown = False  # resample inside residual blocks (ADM)
    model.kind = "unet"  # or upsampler, classifier (imported ones: no training yet)
    model.sinusoid = "cos_sin"  # order of the time embedding; sin_cos: DDPM
    model.sinusoid_shift = 0  # frequencies 10000^(−i/(half−shift)); 1: DDPM
    model.norm_epsilon = 1e-5  # of GroupNorm; 1e-6: DDPM
    model.downsample_padding = "both"  # of strided convolutions; end: DDPM
    model.resample = "conv"  # resampling blocks: conv, or pool (no parameters)
    model.qkv_order = "legacy"  # packing of attention; new: ADM 64x64, DDPM
    model.attention_scale = "split"  # d^-1/4 on q and k; product: d^-1/2 on q·k (DDPM)
    model.middle_attention = "normed"  # plain (no GroupNorm), none: some of diffusers
    model.initialisation = "openai"  # of the weights: openai, ho (DDPM), torch
    model.pool = "attention"  # of a classifier: adaptive, spatial, spatial_v2
    model.dropout = 0.0  # of activations inside residual blocks
    model.class_conditional = False  # learn an embedding of the labels
    model.dtype = "float32"  # of the computation: float32 or bfloat16
    model.remat = "none"  # what the backward pass recomputes: blocks, attention, dots

    config.diffusion = diffusion = config_dict.ConfigDict()
    diffusion.schedule = "linear"  # a key of diffusion.schedules.SCHEDULES, or custom
    diffusion.num_steps = 1000  # T
    diffusion.beta_start = 1e-4  # DDPM section 4
    diffusion.beta_end = 0.02  # DDPM section 4
    diffusion.betas = ()  # with schedule "custom": T values …
    diffusion.betas_path = ""  # … or a .npy file of them, read once into betas
    diffusion.zero_terminal_snr = False  # Lin et al. 2023
    diffusion.log_var_floor = "next"  # or "1e-20"; see process.Schedule
    diffusion.rescale_timesteps = False  # the network sees t·1000/T (Improved DDPM)
    diffusion.prediction = "noise"  # noise, x_0, x_prev or v
    diffusion.variance = "fixed_large"  # fixed_small, learned, learned_range
    diffusion.loss = "simple"  # kl, rescaled_kl, hybrid, rescaled_hybrid
    diffusion.weighting = "none"  # of the squared error: min_snr, p2
    diffusion.weighting_gamma = 0.0  # γ; 0 for the paper's (5 for min_snr, 1 for p2)
    diffusion.weighting_k = 1.0  # k of p2
    diffusion.timestep_sampler = "uniform"  # or loss_second_moment

    config.train = train = config_dict.ConfigDict()
    train.steps = 100_000  # optimizer steps
    train.batch_size = 128  # images of one step, over all devices
    train.microbatches = 1  # parts of a batch evaluated in turn: less memory
    train.learning_rate = 1e-4  # peak
    train.warmup_steps = 0  # linear rise from 0
    train.decay = "none"  # of the learning rate to 0 at train.steps: linear, cosine
    train.weight_decay = 0.0  # decoupled (AdamW)
    train.clip_norm = 0.0  # global norm of the gradient; 0 for no clipping
    train.beta_1 = 0.9  # Adam
    train.beta_2 = 0.999  # Adam
    train.epsilon = 1e-8  # Adam
    train.mu_dtype = "float32"  # of Adam's first moment; bfloat16 halves its memory
    train.ema_decay = (0.9999,)  # one or several rates; sampling uses the first
    train.ema_ramp = True  # see training.ema.decay_at; the papers' codes: False
    train.label_dropout = 0.0  # probability of the null label: enables guidance
    train.log_every = 100  # steps
    train.sample_every = 5_000  # steps between sample grids; 0 for none
    train.checkpoint_every = 5_000  # steps; the last step is always saved
    train.keep_checkpoints = 3  # newest ones kept
    train.keep_every = 0  # steps; checkpoints at multiples are kept for ever; 0: none
    train.evaluate_every = 0  # steps between evaluation.in_training; 0 for none
    train.validate_every = 1_000  # steps between losses of fixed test images, t, noise
    train.writers = ()  # besides metrics.jsonl: tensorboard, wandb
    train.init_from = ""  # run whose weights to start from
    train.max_bad_steps = 3  # non-finite in a row: go back to a checkpoint, once

    config.sampling = sampling = config_dict.ConfigDict()
    sampling.method = "ancestral"  # or ddim
    sampling.steps = config_dict.placeholder(int)  # 1 … T, evenly spaced; unset for T
    sampling.respacing = ""  # instead of steps: "ddim50", "90,60,60,20,20", "fast27"
    sampling.num_samples = 64  # images to make
    sampling.batch_size = 64  # images made at a time; changes no image
    sampling.eta = 0.0  # noise share of ddim, 0 … 1
    sampling.labels = ()  # indices or names, one per sample or cycled; () for all
    sampling.guidance_scale = 1.0  # 1 is plain conditional, 0 unconditional
    sampling.weights = "auto"  # ema, raw, or whichever is better
    sampling.checkpoint = "last"  # or best, by the first of evaluation.in_training
    sampling.clip = True  # clip x̂_0 to [−1, 1]
    sampling.dynamic_threshold = 0.0  # largest threshold; 0 for none
    sampling.seed = 0  # image i of a seed is the same for any batch size

    config.evaluation = evaluation = config_dict.ConfigDict()
    evaluation.metric = "bits_per_dim"  # one or several of rules.METRICS, with commas
    evaluation.num_images = 0  # bits/dim: first images of the test split; 0 for all
    evaluation.num_samples = 10_000  # images to make for the other metrics
    evaluation.samples = ""  # samples.npz or folder to score whole; "" makes them
    evaluation.reference = ""  # statistics or images (.npz, folder); "" for the data
    evaluation.inception = ""  # weights file; "" for $DDPM_JAX_INCEPTION
    evaluation.resize = "tf-legacy"  # to 299x299: pytorch-fid, clean
    evaluation.in_training = "bits_per_dim"  # metrics of train.evaluate_every
    evaluation.in_training_samples = 1_000  # images that these are measured on
    evaluation.batch_size = 64  # images scored at a time; changes no score
    evaluation.steps = config_dict.placeholder(int)  # unset for T, as in the papers
    evaluation.respacing = ""  # instead of steps
    evaluation.weights = "auto"  # ema, raw, or whichever is better
    evaluation.clip = True  # clip x̂_0 to [−1, 1]
    evaluation.seed = 0  # of the noise

    config.mesh = mesh = config_dict.ConfigDict()
    mesh.data = -1  # devices along which only the batch is split; −1 for the rest
    mesh.fsdp = 1  # devices along which the state is split too
    return config


# What an existing run lets change: the rest decides what its weights mean.
MUTABLE = (
    "train.steps",
    "train.log_every",
    "train.sample_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.keep_every",
    "train.evaluate_every",
    "train.validate_every",
    "train.writers",
    "train.max_bad_steps",
    "train.microbatches",
    "data.path",
    "data.cache_gib",
    "sampling.*",
    "evaluation.*",
    "mesh.*",
)


# ---- reading -------------------------------------------------------------------------


def from_file(spec: str) -> config_dict.ConfigDict:
    """Return the config of "file.py" or "file.py:variant".

    The file is Python of the user's own: its `get_config()`, or `get_config(variant)`,
    is called. It can import its neighbours.

    Raises:
        Refusal: no such file, an error in it, or fields outside the schema.
    """
    name, _, variant = spec.partition(":")
    path = pathlib.Path(name)
    if not path.is_file():
        folder = path.parent
        there = sorted(str(file) for file in folder.glob("*.py"))
        hint = f"; there are {', '.join(there)}" if there else ""
        raise errors.Refusal(f"config file {name!r} does not exist{hint}")
    module_spec = importlib.util.spec_from_file_location("ddpm_jax_config", path)
    if module_spec is None:
        raise errors.Refusal(
            f"config file {name!r} is not Python: its name ends in .py"
        )
    module = importlib.util.module_from_spec(module_spec)
    try:
        with _importable(path.parent):
            module_spec.loader.exec_module(module)
        config = module.get_config(variant) if variant else module.get_config()
        values = config.to_dict()
    except errors.Refusal:
        raise
    except Exception as error:  # whatever the user's own code raises
        raise errors.Refusal(
            f"config file {name!r} gives no config ({type(error).__name__}: {error}): "
            "its get_config() must return ddpm_jax.config.base() with changes; --debug "
            "shows where it fails"
        ) from error
    return from_dict(values, where=name)


@contextlib.contextmanager
def _importable(folder: pathlib.Path):
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def from_dict(values: dict[str, Any], *, where: str) -> config_dict.ConfigDict:
    """Return the schema filled with nested `values`; lists become tuples again.

    Raises:
        Refusal: a field that the schema does not have or of another type.
    """
    return from_leaves(leaves(values), where=where)


def from_leaves(pairs, *, where: str) -> config_dict.ConfigDict:
    """Return the schema filled with (dotted path, value) pairs, as `from_dict` does."""
    config = base()
    for path, value in pairs:
        check_name(path, where=where)
        present = _renamed(path, tuple(value) if isinstance(value, list) else value)
        _set(config, path, present)
    return config


def _renamed(path, value):
    """Return the present name of a value that runs of earlier versions stored."""
    if path == "model.remat" and isinstance(value, bool):
        return "blocks" if value else "none"
    return value


def check_name(path: str, *, where: str) -> None:
    """Refuse a dotted field name that the schema does not have; suggest one."""
    known = dict(leaves(base().to_dict()))
    if path in known:
        return
    last = path.rpartition(".")[2]
    same_name = [name for name in known if name.rpartition(".")[2] == last]
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.8) or same_name
    close = close or difflib.get_close_matches(path, known, n=1, cutoff=0.5)
    hint = (
        f": did you mean {close[0]}?" if close else "; see ddpm_jax/config/__init__.py"
    )
    raise errors.Refusal(f"unknown field {path!r} in {where}{hint}")


def leaves(values, prefix=""):
    """Yield (dotted path, value) of a nested dictionary."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _set(config, path, value):
    *parents, name = path.split(".")
    for parent in parents:
        config = config[parent]
    if isinstance(config.get(name), float) and type(value) is int:
        value = float(value)
    try:
        config[name] = value
    except TypeError as error:
        raise errors.Refusal(f"{path} = {value!r}: {error}") from error


def read_betas(config: config_dict.ConfigDict) -> None:
    """Put the numbers of diffusion.betas_path into diffusion.betas, in place.

    A run then carries them itself, whatever becomes of the file.

    Raises:
        Refusal: both fields are given, or the file is not one of numbers.
    """
    diffusion = config.diffusion
    if not diffusion.betas_path:
        return
    if diffusion.betas:
        raise errors.Refusal(
            "diffusion.betas and diffusion.betas_path are both given: keep one"
        )
    try:
        betas = np.load(diffusion.betas_path, allow_pickle=False).astype(np.float64)
    except (OSError, ValueError) as error:
        raise errors.Refusal(
            f"diffusion.betas_path={diffusion.betas_path!r} cannot be read as a .npy "
            f"file of numbers: {error}"
        ) from error
    diffusion.betas = tuple(float(beta) for beta in betas.reshape(-1))
    diffusion.betas_path = ""


# ---- comparing -----------------------------------------------------------------------


def differences(saved, given, *, but=MUTABLE) -> list[tuple[str, Any, Any]]:
    """Return (field, saved value, given value) of every difference outside `but`."""
    given_values = dict(leaves(given.to_dict()))
    return [
        (path, value, given_values[path])
        for path, value in leaves(saved.to_dict())
        if given_values[path] != value and not _matches(path, but)
    ]


def _matches(path, rules):
    return any(
        path == rule or (rule.endswith(".*") and path.startswith(rule[:-1]))
        for rule in rules
    )


def check_same_run(saved, given, *, workdir, also=()) -> None:
    """Refuse to use a run with a config that would change what its weights mean.

    Args:
        also: rules like those of `MUTABLE`, of what may change besides.

    Raises:
        Refusal: names the fields with both values.
    """
    changed = differences(saved, given, but=(*MUTABLE, *also))
    if not changed:
        return
    listed = "; ".join(
        f"{path} is {old!r} there and {new!r} here" for path, old, new in changed
    )
    raise errors.Refusal(
        f"{workdir} holds another run: {listed}; give the same values, choose another "
        f"--workdir, or start a new run from its weights with "
        f"--config.train.init_from={workdir}"
    )
