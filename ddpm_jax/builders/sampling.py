"""What makes images."""

import inspect
from typing import NamedTuple

from ddpm_jax import config as config_lib
from ddpm_jax.builders import class_labels, low_res, prompts
from ddpm_jax.builders import clip as build_clip
from ddpm_jax.builders import guidance as build_guidance
from ddpm_jax.builders import guides as guides_lib
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.builders.network import check_kind
from ddpm_jax.builders.process import respaced, spacing
from ddpm_jax.core import errors
from ddpm_jax.diffusion import solvers
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler, transforms

# Fields of config.sampling that change no image: how many, and how many at a time.
CHANGE_NO_IMAGE = ("num_samples", "batch_size")
# Fields that choose the weights; a recipe notes which were taken.
OF_WEIGHTS = ("weights", "checkpoint")


def recipe(
    config,
    facts: DataInfo,
    *,
    path=None,
    kept=None,
    given: low_res.Given | None = None,
    texts: prompts.Prompts | None = None,
    completes: bool = False,
) -> recipe_lib.Recipe:
    """Return what decides the samples, apart from the weights.

    Every field of config.sampling becomes a setting of the recipe, and with it part of
    requests, tags and cards, but for `CHANGE_NO_IMAGE` and `OF_WEIGHTS`.

    Args:
        config: of the run.
        facts: of its data.
        path: of an edit, see `diffusion.samplers`; None for the solver's own.
        kept: the respaced process of an edit; None for that of config.sampling.
        given: what an upsampler enlarges.
        texts: from `prompts.of`, where they are resolved already.
        completes: whether the edit has a picture to complete.

    Raises:
        Refusal: settings that contradict each other, or that the run cannot meet.
    """
    check_kind(config, "sampling from", completes=completes)
    if given is None:  # there is nothing to enlarge, or it is missing
        low_res.given(config, facts, None)
    kept = kept or respaced(config, "sampling")
    guides = guides_lib.named(config)
    guides_lib.check(config, facts, guides)
    asked = None
    if given is None or "label" not in given.source.carried:
        asked = _classes(config, facts, guides.get(guides_lib.CLASSIFIER))
        _check_classes_known(config, asked, given)
    texts = texts or prompts.of(config, facts, given)
    if not build_guidance.leaves_classes_out(config.sampling):
        prompts.check_prompted(texts, given)
    if config.sampling.prompts and build_guidance.leaves_classes_out(config.sampling):
        raise errors.Refusal(
            "guidance of scale 0 (guidance_scale=0, or guidance_w=-1) leaves the text "
            "out, and a prompt is given: give no prompt, or another scale"
        )
    guided = build_guidance.of(config, facts, guides, kept, solver(config), path)
    made = recipe_lib.Recipe(
        schedule=kept,
        prediction=config.diffusion.prediction,
        variance=config.diffusion.variance,
        shape=facts.shape,
        solver=_solver(config.sampling),
        settings=_settings(
            config,
            asked and asked.asked,
            {**guided.settings, **_enlarged(config, given)},
        ),
        hooks=_hooks(config.sampling),
        guidance=guided.mixings,
        transforms=guided.transforms,
        negative=guided.negative,
        path=guided.path,
        fingerprints=_fingerprints(guides, given),
        seed=_seed(config, facts, given),
        **_conditions(config, asked, _of_texts(config, texts, guides), guides),
    )
    made.check()
    return made


def _seed(config, facts, given) -> int:
    seed = config.sampling.seed
    return seed if given is None else low_res.stage_seed(seed, facts.shape)


def _enlarged(config, given) -> dict:
    """Return the settings of what is enlarged: value and usual value by field."""
    return {
        "low_res": ("" if given is None else given.word, ""),
        "low_res_t": (0 if given is None else given.level, 0),
        "low_res_sigma": None,  # said as low_res_t
    }


def _fingerprints(guides, given) -> tuple[tuple[str, str], ...]:
    """Return the fingerprints of what is not the run's own."""
    prints = [(name, guide.fingerprint) for name, guide in guides.items()]
    if given is not None:
        prints.append((low_res.KEY, given.source.fingerprint))
    return tuple(prints)


def _of_texts(config, texts: prompts.Prompts | None, guides) -> tuple:
    """Return the texts as conditions of the network and of a CLIP that guides it."""
    found = () if texts is None else texts.condition
    guide = guides.get(guides_lib.CLASSIFIER)
    if guide is None or guide.kind != "clip":
        return found
    asked = config.sampling.prompts if texts is None else texts.texts
    return (*found, *build_clip.condition(guide.saved.config, tuple(asked)))


def _conditions(config, asked: "Classes | None", of_texts: tuple, guides) -> dict:
    """Return what the recipe says of the condition of each image."""
    if asked is None:
        return {"condition": of_texts}
    keys = ["label"] if config.model.class_conditional else []
    guide = guides.get(guides_lib.CLASSIFIER)
    keys += [transforms.CLASS] if guide and guide.kind == "classifier" else []
    if asked.are_drawn:
        drawn = tuple((key, len(asked.names)) for key in keys)
        return {"drawn": drawn, "condition": of_texts}
    if asked.repeats > 1 and any(len(values) > 1 for _, values in of_texts):
        raise errors.Refusal(
            f"sampling.per_class={asked.repeats} with several prompts, which images "
            "take in turn: give one prompt, or num_samples instead of per_class"
        )
    return {
        "condition": (*((key, asked.labels) for key in keys), *of_texts),
        "repeats": asked.repeats,
    }


def make_sampler(
    asked: recipe_lib.Recipe,
    config,
    network,
    mesh,
    *,
    weights: recipe_lib.Weights | None = None,
    trajectory=(),
    arrays=None,
    given: low_res.Given | None = None,
) -> sampler.Sampler:
    """Return the sampler of a recipe, with the networks that guide it.

    Args:
        asked: from `recipe`.
        config, network: of the run.
        mesh: devices to share each batch.
        weights: to sample with, where they are known: no run leads away from itself.
        trajectory: positions on the path whose results are kept.
        arrays: what an edit uses, by name; the recipe has their fingerprints.
        given: what an upsampler enlarges, as given to `recipe`.
    """
    guides = guides_lib.named(config)
    known = dict(asked.fingerprints)
    for name, guide in guides.items():
        if known.get(name, guide.fingerprint) != guide.fingerprint:
            raise errors.Refusal(
                f"sampling.{name}: {guide.name} was saved just now, after the request "
                "was read: give the same command again, or name a checkpoint as "
                "RUN@STEP"
            )
    if weights is not None:
        guides_lib.check_weights(guides, weights)
    others = guides_lib.opened(guides, mesh)
    return sampler.Sampler(
        asked,
        network,
        mesh,
        trajectory=trajectory,
        arrays=arrays,
        others=others,
        given=given,
    )


def of_facts(asked: recipe_lib.Recipe, config, facts: DataInfo, *made_of, **options):
    """Return `make_sampler` of a kind of run; the recipe knows the facts already."""
    del facts
    return make_sampler(asked, config, *made_of, **options)


def guidance_lines(config, facts: DataInfo, imported: dict | None) -> list[str]:
    """Return what guides the samples of config.sampling, in a line each.

    Args:
        config: of the run.
        facts: of its data.
        imported: its import record, None for a run that was trained here.
    """
    return build_guidance.described(config, facts, guides_lib.named(config), imported)


def solver(config):
    """Return the solver of config.sampling, a value of `diffusion.solvers`."""
    return recipe_lib.made(solvers.SOLVERS, _solver(config.sampling))


def _solver(sampling) -> recipe_lib.Part:
    """Return the part of sampling.method, with the settings that it takes."""
    make = errors.choose("sampling method", solvers.SOLVERS, sampling.method)
    takes = inspect.signature(make).parameters
    if sampling.eta and "eta" not in takes:
        raise errors.Refusal(
            f"sampling.eta={sampling.eta} with method {sampling.method!r}: it belongs "
            "to 'ddim'; set sampling.method=ddim or sampling.eta=0"
        )
    if not 0 <= sampling.eta <= 1:
        raise errors.Refusal(f"sampling.eta={sampling.eta}: choose 0 … 1")
    options = {name: sampling[name] for name in takes}
    return recipe_lib.part(sampling.method, **options)


def hooks(config):
    """Return the hooks on x̂_0 of config.sampling, functions of x̂_0."""
    table = recipe_lib.HOOKS
    return tuple(recipe_lib.made(table, hook) for hook in _hooks(config.sampling))


def _hooks(sampling) -> tuple[recipe_lib.Part, ...]:
    """Return the hooks on x̂_0, thresholding before clipping."""
    hooks = []
    largest = sampling.dynamic_threshold
    if largest and largest < 1:
        raise errors.Refusal(
            f"sampling.dynamic_threshold={largest}: give the largest threshold, at "
            "least 1, or 0 for none"
        )
    if largest:
        hooks.append(recipe_lib.part("dynamic_threshold", maximum=largest))
    if sampling.clip:
        hooks.append(recipe_lib.part("clip", low=-1.0, high=1.0))
    return tuple(hooks)


def _settings(config, labels, resolved) -> tuple[recipe_lib.Setting, ...]:
    """Return the fields of config.sampling by name, as numbers and names alone.

    Args:
        labels: as the recipe has them.
        resolved: field → value and usual value, where they are not those of the
            config; None leaves the field out.
    """
    whole = config.diffusion.num_steps
    resolved = {**resolved, "steps": (config.sampling.steps or whole, whole)}
    resolved["spacing"] = (spacing(config), "even")
    # Every class in turn goes without saying; what was asked for is named.
    resolved["labels"] = (labels, None if config.sampling.labels else labels)
    settings = []
    for name, usual in config_lib.base().sampling.items():
        if name in (*CHANGE_NO_IMAGE, *OF_WEIGHTS):
            continue
        values = resolved.get(name, (config.sampling[name], usual))
        if values is not None:
            settings.append(recipe_lib.Setting(name, *values))
    return tuple(settings)


# ---- classes -------------------------------------------------------------------------

RANDOM = "random"  # of sampling.labels


class Classes(NamedTuple):
    """The classes of the images that are made.

    Attributes:
        labels: in turn; all of them where they are drawn.
        names: of all classes, by index.
        are_drawn: from seed and number of the image.
        repeats: images of a class before the next one's turn.
    """

    labels: tuple[int, ...]
    names: tuple[str, ...]
    are_drawn: bool
    repeats: int

    @property
    def asked(self) -> tuple:
        """What requests say of them."""
        return (RANDOM,) if self.are_drawn else self.labels

    @property
    def in_columns(self) -> tuple[int, ...] | None:
        """The labels that follow each other again and again in a grid, or None."""
        return None if self.are_drawn or self.repeats > 1 else self.labels

    def __str__(self) -> str:
        if self.are_drawn:
            return f"each drawn from all {len(self.names)}"
        names = class_labels.described(self.labels, self.names)
        return names if self.repeats == 1 else f"{names}, {self.repeats} of each"


def classes(
    config, facts: DataInfo, *, given: low_res.Given | None = None
) -> Classes | None:
    """Return the classes to make, or None where there is nothing to choose.

    Args:
        config: of the run.
        facts: of its data.
        given: what an upsampler enlarges; its classes may be chosen there.
    """
    if given is not None and "label" in given.source.carried:
        return given.source.classes
    return _classes(config, facts, guides_lib.named(config).get(guides_lib.CLASSIFIER))


def _classes(config, facts: DataInfo, guide) -> Classes | None:
    """Return the classes to make, or None where there is nothing to choose.

    Args:
        config: of the run.
        facts: of its data.
        guide: the `guides.Guide` of a classifier, which has classes for a run that has
            none; None without one.

    Raises:
        Refusal: classes of a run without any, or one that is not known, see
            `class_labels.indices`.
    """
    labels, per_class = tuple(config.sampling.labels), config.sampling.per_class
    if config.model.class_conditional:
        names = facts.class_names
    elif guide is not None and guide.kind == "classifier":
        names = guide.saved.facts.class_names
    else:
        for field, value in (("labels", labels), ("per_class", per_class)):
            if value:
                raise errors.Refusal(
                    f"sampling.{field}={value} on a run without classes: leave it out, "
                    "guide the run by a classifier with sampling.classifier=RUN, or "
                    "train one with model.class_conditional=True"
                )
        return None
    are_drawn = labels == (RANDOM,) and RANDOM not in names
    if are_drawn and per_class:
        raise errors.Refusal(
            f"sampling.labels=random and sampling.per_class={per_class}: classes that "
            "are drawn have no fixed number of images; keep one"
        )
    every = tuple(range(len(names)))
    chosen = class_labels.indices(labels, names) if labels and not are_drawn else every
    return Classes(chosen, names, are_drawn, per_class or 1)


def _check_classes_known(config, asked: Classes | None, given) -> None:
    """Refuse to enlarge pictures of which nothing says the class.

    Every class in turn is of images that are made from noise alone.
    """
    sampling = config.sampling
    if None in (asked, given) or sampling.labels or sampling.per_class:
        return
    if not build_guidance.leaves_classes_out(sampling):
        raise errors.Refusal(
            f"{given.source.name} does not say of which class each of its images is, "
            "and sampling.labels is empty: give --config.sampling.labels=…, one for "
            "all or several in the order of the images; there are "
            f"{low_res.some(asked.names)}"
        )


def num_samples(config, asked: Classes | None) -> int:
    """Return how many images --mode=sample makes."""
    if asked is not None and config.sampling.per_class:
        return config.sampling.per_class * len(asked.labels)
    return config.sampling.num_samples
