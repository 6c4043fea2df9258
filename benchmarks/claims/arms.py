"""The trained runs that claims share: what each changes in configs/digits.py."""

import pathlib
from typing import NamedTuple

from benchmarks.claims import points
from ddpm_jax import config as schema
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.config import reading, rules
from ddpm_jax.core import errors
from ddpm_jax.diffusion import reverse

ROOT = pathlib.Path(__file__).parents[2]
SEEDS = {"digits": (0, 1, 2), "points": (0, 1, 2, 3, 4), "plane": (0, 1, 2)}
FAST_STEPS = 25  # optimizer steps of --fast, which only shows that everything runs

# What the arms of a data set have in common: digits.py, small enough for one core …
DIGITS = {
    "model.channels": 16,
    "train.steps": 600,
    "train.batch_size": 32,
    "train.sample_every": 0,
    "train.validate_every": 0,
    "train.evaluate_every": 0,
    "train.checkpoint_every": 600,
    "train.keep_checkpoints": 1,
}
# … and the same process, objective and rates for points.
POINTS = {
    "data.name": "points",
    "diffusion.num_steps": 200,
    "diffusion.variance": "learned_range",
    "diffusion.loss": "rescaled_hybrid",
    "train.steps": 2000,
    "train.batch_size": 128,
    "train.learning_rate": 2e-3,
    "train.warmup_steps": 100,
    "train.decay": "cosine",
    "train.clip_norm": 1.0,
    "train.ema_decay": (0.995,),
}
SIMPLE = {"diffusion.variance": "fixed_large", "diffusion.loss": "simple"}
BOUND = {"diffusion.variance": "fixed_large", "diffusion.loss": "rescaled_kl"}


class Arm(NamedTuple):
    """One kind of run.

    Attributes:
        told: what it is, for the pages.
        changes: field → value, on top of what its data set has in common.
        guides: the arm whose runs it is a classifier for; "" for a diffusion model.
        data: "digits", "points" or, where nothing is trained, "plane".
    """

    told: str
    changes: dict
    guides: str = ""
    data: str = "digits"

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs."""
        return SEEDS[self.data]


_OF_DIGITS = {
    "hybrid": Arm("noise, learned range, hybrid loss, linear schedule", {}),
    "simple": Arm("noise, fixed variance, L_simple, linear schedule", SIMPLE),
    "cosine": Arm(
        "as `simple`, cosine schedule", SIMPLE | {"diffusion.schedule": "cosine"}
    ),
    "vlb": Arm("as `hybrid`, the bound alone", {"diffusion.loss": "rescaled_kl"}),
    "classifier": Arm("classifier of noisy digits", {}, guides="hybrid"),
    "kl": Arm("as `simple`, the bound", BOUND),
    "x_0": Arm("as `simple`, x_0 predicted", SIMPLE | {"diffusion.prediction": "x_0"}),
    "mean_mse": Arm(
        "as `simple`, the mean predicted",
        SIMPLE | {"diffusion.prediction": "x_prev"},
    ),
    "mean_kl": Arm(
        "as `kl`, the mean predicted", BOUND | {"diffusion.prediction": "x_prev"}
    ),
    "addition": Arm(
        "as `hybrid`, the time embedding added", {"model.scale_shift": False}
    ),
    "vlb_importance": Arm(
        "as `vlb`, timesteps by importance",
        {
            "diffusion.loss": "rescaled_kl",
            "diffusion.timestep_sampler": "loss_second_moment",
        },
    ),
    "kl_learned": Arm(
        "as `kl`, free log-variance learned",
        {"diffusion.variance": "learned", "diffusion.loss": "rescaled_kl"},
    ),
    "attention": Arm(
        "as `hybrid`, attention at 8×8 too", {"model.attention_resolutions": (8, 4)}
    ),
}

# Arms that make sense for points too: those without classes and maps of pixels.
_OF_BOTH = [name for name in _OF_DIGITS if name not in ("classifier", "attention")]
ARMS = {
    "mixture": Arm("exact networks in the plane, nothing trained", {}, data="plane"),
    **{f"points_{name}": _OF_DIGITS[name]._replace(data="points") for name in _OF_BOTH},
    **_OF_DIGITS,
}


def config(name: str, seed: int, workdir: pathlib.Path, *, fast: bool = False):
    """Return the config of an arm.

    Args:
        name: a key of `ARMS`.
        seed: of the run.
        workdir: folder of all runs; a classifier's config is made of the run that it
            guides, which must be there.
        fast: train for `FAST_STEPS` only.

    Raises:
        Refusal: an unknown name.
    """
    arm = errors.choose("arm", ARMS, name)
    common = DIGITS
    if arm.guides:
        guided = run_folder(workdir, arm.guides, seed)
        made = reading.from_file(f"{ROOT}/configs/digits_classifier.py:{guided}")
    elif arm.data == "points":
        made, common = schema.base(), POINTS
    else:
        made = reading.from_file(f"{ROOT}/configs/digits.py")
    for path, value in (common | arm.changes).items():
        section, field = path.split(".")
        made[section][field] = value
    made.seed = seed
    if fast:
        made.train.steps = made.train.checkpoint_every = FAST_STEPS
    rules.check_types(made)
    rules.check_values(made)
    return made


def run_folder(workdir: pathlib.Path, name: str, seed: int) -> pathlib.Path:
    """Return where the run of an arm and a seed lies."""
    return workdir / f"{name}-{seed}"


# Fields that change no number of a run.
COSMETIC = (
    "model.guides",
    *("train.log_every", "train.sample_every", "train.validate_every"),
    *("train.evaluate_every", "train.checkpoint_every", "train.keep_checkpoints"),
)


def network(made, facts):
    """Return the network of a config of an arm: its own where it is one of points."""
    if made.data.name != "points":
        return build_network.network(made, facts)
    own = own_network(made)
    return build_network.custom_network(own, made, facts)


def own_network(made):
    """Return the network of an arm of points, None for one that its config says."""
    if made.data.name != "points":
        return None
    learned = made.diffusion.variance in reverse.LEARNED_VARIANCES
    return points.network(learned=learned, scale_shift=made.model.scale_shift)


def dataset(made, split: str):
    """Return a split of the data of a config of an arm."""
    if made.data.name == "points":
        return points.dataset(split)
    return build_data.dataset(made, split)


def record(made) -> dict:
    """Return what decides a run: the fields of data to train that are not usual.

    Args:
        made: from `config`.
    """
    usual = dict(reading.leaves(schema.base().to_dict()))
    kept = {}
    for path, value in reading.leaves(made.to_dict()):
        decides = path.split(".")[0] in ("data", "model", "diffusion", "train")
        if decides and path not in COSMETIC and value != usual[path]:
            kept[path] = list(value) if isinstance(value, tuple) else value
    return kept
