"""What a run of each model.kind is made of: one record a kind."""

import dataclasses
import functools
import shlex
from collections.abc import Callable

from ddpm_jax.builders import chains, classifier, paper_2015, scoring
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders.process import objective, schedule, timestep_sampler
from ddpm_jax.builders.training import learning_rate, optimizer
from ddpm_jax.core import errors
from ddpm_jax.diffusion import process
from ddpm_jax.metrics import table
from ddpm_jax.runs import commands
from ddpm_jax.training import step


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of run.

    Attributes:
        noun: what the network is called.
        makes_images: whether it can be sampled from: images, or examples of any shape.
        reads: `network → specs` of what a training batch holds besides images.
        check_new: `(config, facts)`; refuses what a new run cannot be.
        train_step: `(config, facts, network) → (state, batch) → (state, metrics)`.
        validator: `(config, facts, network, test, train, mesh=…) → params → record`.
        metrics: of --mode=evaluate.
        use: `(config, workdir)` → what it is for and the command.
        recipe: `(config, facts, given=…, texts=…)` → what decides the samples, see
            `builders.sampling.recipe`.
        make_sampler: `(recipe, config, facts, network, mesh, weights=…)` → their maker.
    """

    noun: str
    makes_images: bool
    reads: Callable
    check_new: Callable
    train_step: Callable
    validator: Callable
    metrics: tuple[str, ...]
    use: Callable
    recipe: Callable = build_sampling.recipe
    make_sampler: Callable = build_sampling.of_facts


def _unet_step(config, facts, network):
    return functools.partial(
        step.train_step,
        seed=config.seed,
        apply=network.apply,
        tables=process.tables(schedule(config)),
        objective=objective(config, facts),
        optimizer=optimizer(config),
        learning_rate=learning_rate(config),
        timestep_sampler=timestep_sampler(config),
        ema_ramp=config.train.ema_ramp,
        condition_spec=network.condition_spec,
        label_dropout=config.train.label_dropout,
        dropout=config.model.dropout > 0,
        microbatches=config.train.microbatches,
    )


def _unet_check(config, facts):
    del facts
    if config.model.guides:
        raise errors.Refusal(
            f"model.guides={config.model.guides} with model.kind={config.model.kind!r}:"
            " only a classifier guides another run; leave it empty"
        )


def _unet_validator(config, facts, network, test, train, *, mesh):
    del train
    return scoring.validator(config, facts, network, test, mesh=mesh)


def _sample_it(config, workdir):
    del config
    return (
        "sample from it: "
        f"{commands.PROGRAM} --mode=sample --workdir={shlex.quote(str(workdir))}"
    )


UNET = Kind(
    noun="U-Net",
    makes_images=True,
    reads=lambda network: network.condition_spec,
    check_new=_unet_check,
    train_step=_unet_step,
    validator=_unet_validator,
    metrics=(table.BITS, *table.METRICS, *table.OF_TEXTS),
    use=_sample_it,
)


def _upsampler_step(config, facts, network):
    if not config.data.low_res_factor:
        raise errors.Refusal(
            "data.low_res_factor=0 with model.kind='upsampler': say how much the run "
            "shall enlarge; data.low_res_factor=4 trains it to make four times the "
            "width and height"
        )
    return _unet_step(config, facts, network)


UPSAMPLER = dataclasses.replace(
    UNET,
    noun="upsampler",
    train_step=_upsampler_step,
    metrics=(*table.OF_UPSAMPLERS, table.BITS, *table.METRICS),
    use=lambda config, workdir: (
        "enlarge images, or what another run makes: "
        f"{commands.PROGRAM} --mode=sample --workdir={shlex.quote(str(workdir))} "
        "--config.sampling.low_res=RUN"
    ),
)
CLASSIFIER = Kind(
    noun="classifier",
    makes_images=False,
    reads=lambda network: classifier.LABEL,
    check_new=classifier.check_new,
    train_step=classifier.train_step,
    validator=classifier.validator,
    metrics=(table.ACCURACY,),
    use=lambda config, workdir: (
        f"guide samples with it: {commands.guide(config.model.guides, workdir)}"
    ),
)
CHAIN = Kind(
    noun="network of a chain",
    makes_images=True,
    reads=lambda network: network.condition_spec,
    check_new=_unet_check,
    train_step=paper_2015.train_step,
    validator=paper_2015.validator,
    metrics=(table.BOUND,),
    use=_sample_it,
    recipe=paper_2015.recipe,
    make_sampler=paper_2015.make_sampler,
)
KINDS = {"unet": UNET, "upsampler": UPSAMPLER, "classifier": CLASSIFIER}
KINDS |= dict.fromkeys(chains.KINDS, CHAIN)


def of(config) -> Kind:
    """Return the record of model.kind.

    Raises:
        Refusal: a kind that is imported alone.
    """
    if config.model.kind not in KINDS:
        build_network.check_kind(config, "training or scoring")
    return KINDS[config.model.kind]


def sampled(config) -> Kind:
    """Return the record by which a run is sampled from.

    Where model.kind has none it is the U-Net's, whose recipe refuses the run.
    """
    return KINDS.get(config.model.kind, UNET)


def check_metrics(config, names, *, field: str = "evaluation.metric") -> None:
    """Refuse metrics that are of another kind of run.

    Args:
        config: of the run, or the usual one where images are scored without a run.
        names: the metrics.
        field: the config field that names them.

    Raises:
        Refusal: names those of this kind.
    """
    own = of(config).metrics
    if field != "evaluation.metric":  # while training
        unmeasured = (*table.OF_TEXTS, *table.OF_UPSAMPLERS)
        own = tuple(name for name in own if name not in unmeasured)
    for name in names:
        if name not in own:
            raise errors.Refusal(
                f"{field}={name} with model.kind={config.model.kind!r}: give one or "
                f"several, with commas, of {', '.join(own)}"
            )
