"""Which values the fields of a config may have, apart from contradictions.

`builders` refuses what contradicts; here each field is checked alone.
"""

import math

from ml_collections import config_dict

from ddpm_jax import config as config_lib
from ddpm_jax.config import reading
from ddpm_jax.core import errors
from ddpm_jax.metrics import table

MAX_SEED = 2**32 - 1
TUPLE_ELEMENTS = {
    "data.image_size": (int,),
    "model.channel_mult": (int, float),
    "model.attention_resolutions": (int,),
    "diffusion.betas": (int, float),
    "train.ema_decay": (int, float),
    "train.writers": (str,),
    "sampling.labels": (int, str),
    "sampling.guidance_interval": (int, float),
    "sampling.low_res": (str,),
    "editing.box": (int,),
    "editing.scales": (int, float),
    "editing.image_labels": (int, str),
    "editing.levels": (int, float),
    "editing.samples": (int,),
}
# Class names, in which commas and blanks may be: `builders` knows which there are.
NAMES = ("sampling.labels", "editing.image_labels")
PATHS = ("sampling.low_res",)  # with commas between them

METRIC_LISTS = ("evaluation.metric", "evaluation.in_training")

CHOICES = {
    "sampling.spacing": ("", "even", "trailing", "quadratic", "logsnr"),
    "sampling.weights": ("auto", "ema", "raw"),
    "evaluation.weights": ("auto", "ema", "raw"),
    "evaluation.resize": ("tf-legacy", "pytorch-fid", "clean"),
    "data.crop": ("none", "center", "random"),
    "data.tokenizer": ("words", "bytes", "gpt2"),
    "train.optimizer": ("adam", "muon"),
    "train.mu_dtype": ("float32", "bfloat16"),
    "model.remat": ("none", "blocks", "attention", "dots"),
    "editing.quality": ("fast", "good", "best"),
    "editing.likelihood": ("dps", "pigdm", "exact"),
    "editing.mix": ("", "linear", "spherical", "preserving"),
    "editing.kind": ("denoise", "walk", "morph", "guidance", "train"),
    "editing.format": ("gif", "apng", "webp", "mp4"),
    "model.kind": (
        "unet",
        "upsampler",
        "classifier",
        "clip",
        "gaussian_2015",
        "binomial_2015",
    ),
    "model.network": ("rbf", "mlp", "multiscale"),
    "model.mean_form": ("convex", "residual"),
    "diffusion.bits_of": ("x_0", "x_prev"),
}
SEEDS = ("seed", "sampling.seed", "evaluation.seed")
AT_LEAST_ONE = (
    "model.hidden_layers",
    "model.scales",
    "model.patch_size",
    "model.image_layers",
    "model.embedding",
    "model.text_width",
    "model.text_heads",
    "diffusion.num_steps",
    "train.steps",
    "train.batch_size",
    "train.microbatches",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.max_bad_steps",
    "sampling.num_samples",
    "sampling.batch_size",
    "editing.variants",
    "editing.draws",
    "editing.iterations",
    "evaluation.batch_size",
    "evaluation.num_samples",
    "evaluation.draws",
    "evaluation.in_training_samples",
)
NOT_NEGATIVE = (
    "evaluation.trajectories",
    "model.readouts",
    "model.dense_channels",
    "model.text_layers",
    "model.text_context",
    "model.text_vocabulary",
    "data.cache_gib",
    "data.channels",
    "data.low_res_factor",
    "sampling.low_res_t",
    "sampling.low_res_sigma",
    "model.sinusoid_shift",
    "diffusion.weighting_gamma",
    "diffusion.weighting_k",
    "train.warmup_steps",
    "train.keep_every",
    "sampling.per_class",
    "editing.resamplings",
    "editing.jump",
    "editing.noise",
    "editing.frames",
    "editing.fps",
    "editing.seeds",
    "mesh.cpu_devices",
    "train.weight_decay",
    "train.clip_norm",
    "train.sample_every",
    "train.evaluate_every",
    "train.validate_every",
    "evaluation.num_images",
)
POSITIVE = (
    "train.learning_rate",
    "train.epsilon",
    "model.norm_epsilon",
    "sampling.temperature",
    "diffusion.data_std",
)
SHARES = ("train.init_min_share",)
EXIT_CODES = ("train.exit_code_on_preemption",)  # 1 is that of errors
BELOW_ONE = ("train.beta_1", "train.beta_2", "train.label_dropout", "model.dropout")


def normalise_tuples(config: config_dict.ConfigDict) -> None:
    """Undo what the flag parser does to tuples, in place.

    It reads an empty value as one empty string, and names separated by commas as one
    name: `--config.train.writers=wandb,tensorboard`.
    """
    for path in set(TUPLE_ELEMENTS) - {*NAMES, *PATHS}:
        section, field = path.split(".")
        elements = []
        for element in config[section][field]:
            if isinstance(element, str):
                elements += [part.strip() for part in element.split(",")]
            else:
                elements.append(element)
        config[section][field] = tuple(part for part in elements if part != "")


def split_paths(config: config_dict.ConfigDict) -> None:
    """Make several paths of one text with commas, in place."""
    for path in PATHS:
        section, field = path.split(".")
        parts = [p.strip() for text in config[section][field] for p in text.split(",")]
        config[section][field] = tuple(part for part in parts if part)


def check_types(config: config_dict.ConfigDict) -> None:
    """Refuse values of another type than the schema's, tuples element by element."""
    schema = dict(reading.leaves(config_lib.base().to_dict()))
    for path, value in reading.leaves(config.to_dict()):
        expected = schema[path]
        if path in TUPLE_ELEMENTS:
            _check_tuple(path, value, TUPLE_ELEMENTS[path])
        elif expected is None or value is None:
            if value is not None and (
                isinstance(value, bool) or type(value) is not int
            ):
                raise errors.Refusal(f"{path} = {value!r}: give an integer")
        elif type(value) is not type(expected):
            raise errors.Refusal(
                f"{path} = {value!r} is of type {type(value).__name__}: give "
                f"{type(expected).__name__}, such as {expected!r}"
            )


def check_values(config: config_dict.ConfigDict) -> None:
    """Refuse values that no run can have; `builders` refuses contradictions.

    Raises:
        Refusal: names the field, its value and the good ones.
    """
    values = dict(reading.leaves(config.to_dict()))

    def check(paths, is_good, good):
        for path in paths:
            if not is_good(values[path]):
                raise errors.Refusal(f"{path}={values[path]!r}: give {good}")

    floats = [path for path, value in values.items() if isinstance(value, float)]
    check(floats, math.isfinite, "a finite number")
    check(SEEDS, lambda value: 0 <= value <= MAX_SEED, f"a seed of 0 … {MAX_SEED}")
    check(AT_LEAST_ONE, lambda value: value >= 1, "an integer of at least 1")
    check(NOT_NEGATIVE, lambda value: value >= 0, "0 or more")
    check(POSITIVE, lambda value: value > 0, "a number above 0")
    check(BELOW_ONE, lambda value: 0 <= value < 1, "0 … below 1")
    check(SHARES, lambda value: 0 <= value <= 1, "a share of 0 … 1")
    check(
        EXIT_CODES,
        lambda value: value == 0 or 2 <= value <= 255,
        "0, or 2 … 255, such as 143",
    )
    for path, choices in CHOICES.items():
        check([path], choices.__contains__, "one of " + ", ".join(choices))
    check(
        ["sampling.checkpoint"],
        lambda value: value in ("last", "best") or value.isdecimal(),
        "last, best, or the step of a checkpoint that is kept",
    )
    check(
        METRIC_LISTS,
        _is_metric_list,
        "one or several, with commas, of " + ", ".join(table.NAMES),
    )


def metric_names(value: str) -> tuple[str, ...]:
    """Return the names in a list such as "bits_per_dim, proxy_fd"."""
    return tuple(name.strip() for name in value.split(","))


def _is_metric_list(value):
    names = metric_names(value)
    return set(names) <= set(table.NAMES) and len(set(names)) == len(names)


def _check_tuple(path, value, kinds):
    names = " or ".join(kind.__name__ for kind in kinds)
    good = isinstance(value, tuple) and all(
        isinstance(element, kinds) and not isinstance(element, bool)
        for element in value
    )
    if not good:
        raise errors.Refusal(
            f"{path} = {value!r}: give a list of {names}, such as --config.{path}=1,2"
        )
