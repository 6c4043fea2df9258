"""Other runs that guide the sampling of one: a noisy classifier, a weaker network."""

import copy
import dataclasses
import functools
import pathlib
import re

from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import trained_run
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.builders.network import null_label
from ddpm_jax.core import errors
from ddpm_jax.runs import checkpoints
from ddpm_jax.sampling import branches, transforms
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.text import tokenizers

CLASSIFIER, WEAKER = transforms.CLASSIFIER, branches.WEAKER  # names of the networks
FIELDS = {CLASSIFIER: "sampling.classifier", WEAKER: "sampling.weaker"}
BY_GRADIENT = ("classifier", "clip")  # values of model.kind
AT_STEP = re.compile(r"(.+)@(\d+)")


@dataclasses.dataclass(frozen=True)
class Guide:
    """A run that guides another one, and which of its checkpoints.

    Attributes:
        saved: what its config.json says.
        step: of the checkpoint.
        fingerprint: of the checkpoint.
    """

    saved: trained_run.SavedRun
    step: int
    fingerprint: str

    @property
    def name(self) -> str:
        """The run and its step, without the place of the run: "digits_classifier@9"."""
        return f"{self.saved.run_dir.path.name}@{self.step}"

    @property
    def kind(self) -> str:
        """Its model.kind."""
        return self.saved.config.model.kind


def named(config) -> dict[str, Guide]:
    """Return the runs that config.sampling names, by the names of their networks.

    Nothing large is read.

    Args:
        config: of the run that is sampled.

    Raises:
        Refusal: no run or checkpoint there.
    """
    found = {}
    for name, field in FIELDS.items():
        if text := config.sampling[name]:
            with errors.about(f"{field}={text}"):
                found[name] = _read(text)
    return found


def check(config, facts: DataInfo, guides: dict[str, Guide]) -> None:
    """Refuse runs that cannot guide this one.

    Args:
        config: of the run that is sampled.
        facts: of its data.
        guides: from `named`.
    """
    for name, guide in guides.items():
        with errors.about(f"{FIELDS[name]}={config.sampling[name]}"):
            CHECKS[name](config, facts, guide.saved)


def check_weights(guides: dict[str, Guide], weights: recipe_lib.Weights) -> None:
    """Refuse a checkpoint that is to lead away from itself.

    Args:
        guides: from `named`.
        weights: of the run that is sampled.
    """
    weaker = guides.get(WEAKER)
    if weaker is not None and weights.fingerprint.startswith(weaker.fingerprint):
        raise errors.Refusal(
            f"sampling.weaker={weaker.name} is the very checkpoint that is sampled: "
            "give an earlier one as RUN@STEP, or a run that was trained less"
        )


def opened(guides: dict[str, Guide], mesh) -> dict[str, tuple]:
    """Return (network, parameters on the mesh) of each guide, by name."""
    return {
        name: _opened(guide.saved.run_dir.path, guide.step, guide.fingerprint, mesh)
        for name, guide in guides.items()
    }


def _read(text: str) -> Guide:
    """Return the guide that RUN or RUN@STEP names."""
    match = AT_STEP.fullmatch(text)
    asked = None
    if match and not pathlib.Path(text).expanduser().exists():
        text, asked = match[1], int(match[2])
    saved = trained_run.read(pathlib.Path(text).expanduser())
    with checkpoints.Checkpoints(saved.run_dir.checkpoints) as stored:
        steps = stored.steps()
        if not steps:
            raise errors.Refusal("this run has no checkpoint: train it first")
        step = steps[-1] if asked is None else asked
        if step not in steps:
            raise errors.Refusal(
                f"no checkpoint of step {step} is kept: choose one of "
                f"{', '.join(map(str, steps))}"
            )
        return Guide(saved, step, stored.fingerprint(step))


# Sampling from Python comes here for every call: the weights are read once.
@functools.lru_cache(maxsize=4)
def _opened(path, step, fingerprint, mesh):
    saved = trained_run.read(path)
    config = copy.deepcopy(saved.config)
    config.sampling.checkpoint = str(step)
    run = trained_run.open_run(saved, config, mesh=mesh)
    if run.fingerprint != fingerprint:
        raise errors.Refusal(
            f"the checkpoint of step {step} in {path} is damaged or was replaced: name "
            "another one as RUN@STEP"
        )
    return run.network, run.weights("auto", field="weights of the guide").params


# ---- what cannot guide ---------------------------------------------------------------


def _check_classifier(config, facts, guide):
    kind = guide.config.model.kind
    if kind not in BY_GRADIENT:
        raise errors.Refusal(
            f"this run is a {kind!r} and no classifier: give one that was trained with "
            "--config=digits_classifier:RUN, or imported; "
            "sampling.weaker takes a weaker network"
        )
    _check_alike(config, facts, guide)
    if kind == "clip":
        return
    if config.sampling.prompts and not config.model.text_layers:
        raise errors.Refusal(
            "this classifier guides to classes, and --prompt is given for a run that "
            "reads no text: leave it out, or give a CLIP, which reads it"
        )
    if not config.model.class_conditional:
        return
    ours, theirs = facts.class_names, guide.facts.class_names
    if len(ours) != len(theirs) or (
        ours != theirs and not (_are_numbers(ours) or _are_numbers(theirs))
    ):
        raise errors.Refusal(
            f"this classifier knows the classes {_some(theirs)} and the run "
            f"{_some(ours)}: they must be the same, in the same order"
        )


def _check_weaker(config, facts, guide):
    kind = guide.config.model.kind
    if kind != config.model.kind:
        raise errors.Refusal(
            f"this run is a {kind!r} and the one to sample from a "
            f"{config.model.kind!r}: a weaker network is of the same kind"
        )
    _check_alike(config, facts, guide)
    for path in ("diffusion.prediction", "model.class_conditional"):
        section, field = path.split(".")
        ours, theirs = config[section][field], guide.config[section][field]
        if ours != theirs:
            raise errors.Refusal(
                f"{path} is {theirs!r} there and {ours!r} here: a weaker network "
                "predicts the same quantity from the same inputs"
            )
    _check_texts(config, facts, guide)
    is_told = config.model.class_conditional
    scale = config.sampling.guidance_scale
    if is_told and scale == 0 and null_label(guide.config, guide.facts) is None:
        raise errors.Refusal(
            "sampling.guidance_scale=0 and a weaker run without label drop-out, which "
            "has no unconditional branch: give another scale, or another weaker run"
        )
    if is_told and facts.num_classes != guide.facts.num_classes:
        raise errors.Refusal(
            f"this run has {guide.facts.num_classes} classes and the one to sample "
            f"from {facts.num_classes}: give one of the same data"
        )


def _check_texts(config, facts, guide):
    """Refuse a weaker run that reads no text, or other tokens, where this one does."""
    ours, theirs = (bool(c.model.text_layers) for c in (config, guide.config))
    if ours != theirs:
        reads = {True: "reads a text", False: "reads none"}
        raise errors.Refusal(
            f"this run {reads[theirs]} and the one to sample from {reads[ours]}: a "
            "weaker network predicts the same quantity from the same inputs"
        )
    if ours and facts.text and guide.facts.text != facts.text:
        of_both = [f.text and f.text.tokenizer for f in (guide.facts, facts)]
        if of_both[0] != of_both[1]:
            there, here = map(tokenizers.described, of_both)
            raise errors.Refusal(
                f"this run reads texts by {there} and the one to sample from by "
                f"{here}, so that one token is two words: give a run with the same "
                "tokenizer, such as an earlier checkpoint, RUN@STEP"
            )


CHECKS = {CLASSIFIER: _check_classifier, WEAKER: _check_weaker}


def _check_alike(config, facts, guide):
    """Refuse another process, or another shape of the examples."""
    if facts.shape != guide.facts.shape:
        raise errors.Refusal(
            f"this run is of examples of shape {guide.facts.shape} and the one to "
            f"sample from of {facts.shape}: train it on the same data at the same size"
        )
    ours, theirs = (build_process.schedule(c) for c in (config, guide.config))
    if (ours.betas, ours.rescale_timesteps) == (theirs.betas, theirs.rescale_timesteps):
        return
    fields = ("schedule", "num_steps", "rescale_timesteps", "zero_terminal_snr")
    values = [(f, guide.config.diffusion[f], config.diffusion[f]) for f in fields]
    lines = [f"{f} is {theirs!r} there and {ours!r} here" for f, theirs, ours in values]
    differing = [t for t, (_, a, b) in zip(lines, values, strict=True) if a != b] or [
        "its betas are others"
    ]
    raise errors.Refusal(
        f"this run knows the noise of another process ({'; '.join(differing)}): what "
        "it says of x_t is wrong here; train it on the process of the run it guides"
    )


def _are_numbers(names):
    """Return whether classes have no names of their own, as imported ones."""
    return tuple(names) == tuple(map(str, range(len(names))))


def _some(names):
    shown = ", ".join(names[:4])
    return f"{shown}, … ({len(names)})" if len(names) > 4 else shown
