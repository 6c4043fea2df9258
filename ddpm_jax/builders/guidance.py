"""What config.sampling asks of guidance, as parts of a recipe.

Settings that have no effect, because the guidance they belong to is not there, are
refused where they were given, and at their usual value in the request: images that
guidance does not change have one name.
"""

from typing import Any, NamedTuple

from ddpm_jax import config as config_lib
from ddpm_jax.builders import class_labels, prompts
from ddpm_jax.builders import clip as build_clip
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.builders.guides import CLASSIFIER, WEAKER, Guide
from ddpm_jax.builders.network import null_label
from ddpm_jax.convert import published_pairs
from ddpm_jax.core import errors
from ddpm_jax.diffusion import process, samplers
from ddpm_jax.sampling import recipe as recipe_lib

WHOLE = (0.0, 1.0)


class Guidance(NamedTuple):
    """Parts of a recipe, see `sampling.recipe.Recipe`.

    Attributes:
        mixings: of the outputs of branches.
        transforms: by the gradient of a classifier.
        negative: of the branch that guidance leads away from.
        path: with the entries that are guided; None where all are.
        settings: field of config.sampling → value and usual value, where they are not
            those of the config.
    """

    mixings: tuple[recipe_lib.Part, ...]
    transforms: tuple[recipe_lib.Part, ...]
    negative: tuple[tuple[str, int], ...]
    path: tuple | None
    settings: dict[str, tuple[Any, Any]]


def of(
    config,
    facts: DataInfo,
    guides: dict[str, Guide],
    kept: process.Schedule,
    solver,
    path: samplers.Path | None,
) -> Guidance:
    """Return the guidance that config.sampling asks for.

    Args:
        config: of the run that is sampled.
        facts: of its data.
        guides: from `guides.of`.
        kept: the process that is sampled.
        solver: a value of `diffusion.solvers`.
        path: of the chain; None for the solver's own. A part of one that was guided
            before says itself which of its entries are.

    Raises:
        Refusal: settings that contradict each other, that have no effect, or that the
            run cannot meet.
    """
    sampling = config.sampling
    scale = guidance_scale(sampling)
    _check_needed(sampling, scale)
    low, high = _interval(sampling)
    mixings = _mixings(config, facts, scale, guides) if low < high else []
    transforms = _transforms(sampling, guides, kept, solver)
    is_guided = bool(mixings or transforms)
    is_partial = is_guided and (low, high) != WHOLE
    if is_partial and not _says_guided(path):
        path = _path(kept, path or solver.path(kept.num_steps), low, high)
    negative, led_from = _negative(config, facts)
    settings = {
        "guidance_scale": (scale if low < high else 1.0, 1.0),
        "guidance_interval": ((low, high) if is_partial else WHOLE, WHOLE),
        "negative": (led_from, ""),
        "guidance_w": None,  # said as guidance_scale
    }
    if low == high:  # nothing is guided, by whatever
        negative = ()
        settings |= {"negative": ("", ""), "guidance_rescale": (0.0, 0.0)}
    for name, guide in guides.items():
        settings[name] = (guide.name, "")
        settings[f"{name}_scale"] = (sampling[f"{name}_scale"], None)
    return Guidance(
        mixings=tuple(mixings),
        transforms=tuple(transforms),
        negative=negative,
        path=path,
        settings=settings,
    )


def guidance_scale(sampling) -> float:
    """Return the scale in our convention: 1 is plain conditional, 0 unconditional.

    Ho & Salimans 2021 count from the conditional network: w = scale − 1.

    Raises:
        Refusal: both are given.
    """
    scale, w = sampling.guidance_scale, sampling.guidance_w
    if w and scale != 1:
        raise errors.Refusal(
            f"sampling.guidance_scale={scale:g} and sampling.guidance_w={w:g} are both "
            f"given: keep one; w is the scale less 1, so that w={w:g} is scale "
            f"{1 + w:g}"
        )
    return 1 + w if w else scale


def described(
    config, facts: DataInfo, guides: dict[str, Guide], imported: dict | None
) -> list[str]:
    """Return what guides the samples, in a line each, with what the scales mean.

    Args:
        config: of the run that is sampled.
        facts: of its data.
        guides: from `guides.named`.
        imported: the import record of the run, None without one.
    """
    sampling, lines = config.sampling, []
    scale = guidance_scale(sampling)
    if scale != 1:
        what = "text" if config.model.text_layers else "class"
        away = f"{what} {sampling.negative!r}" if sampling.negative else f"no {what}"
        lines.append(
            f"guidance: classifier-free, scale {scale:g} (1 is plain conditional, 0 "
            f"unconditional; w = {scale - 1:g} of Ho & Salimans), away from {away}"
        )
        if config.model.text_layers:
            _, note = prompts.negative(config, facts)
            lines += [f"note: {note}"] if note else []
    if CLASSIFIER in guides:
        guide = guides[CLASSIFIER]
        noun = "CLIP" if guide.kind == "clip" else "classifier"
        lines.append(
            f"guidance: by the {noun} {guide.name}, scale "
            f"{sampling.classifier_scale:g} (factor of its gradient; 0 is none)"
        )
        if guide.kind == "clip":
            texts = tuple(sampling.prompts) or (facts.text and facts.text.captions)
            notes = build_clip.notes(guide.saved.config, texts or ())
            lines += [f"note: {note}" for note in notes]
    if WEAKER in guides:
        lines.append(
            f"guidance: away from the weaker {guides[WEAKER].name}, scale "
            f"{sampling.weaker_scale:g} (1 is this run alone)"
        )
    low, high = sampling.guidance_interval
    if lines and (low, high) != WHOLE:
        lines.append(f"guidance acts where {low:g} ≤ t/T < {high:g}")
    if imported and CLASSIFIER in guides and guides[CLASSIFIER].saved.imported:
        names = (imported, guides[CLASSIFIER].saved.imported)
        lines += published_pairs.described(*(n["published"] for n in names), sampling)
    return lines


def leaves_classes_out(sampling) -> bool:
    """Return whether no network is given a class, at any t."""
    return (
        guidance_scale(sampling) == 0
        and tuple(map(float, sampling.guidance_interval)) == WHOLE
        and not sampling.classifier
        and not sampling.weaker
    )


def _check_needed(sampling, scale) -> None:
    """Refuse settings of guidance that is not there."""
    usual = config_lib.base().sampling
    mixes = scale not in (0, 1)
    needs = {
        "guidance_rescale": (mixes or sampling.weaker, "a guidance_scale but 0 and 1"),
        "negative": (mixes, "a guidance_scale but 0 and 1"),
        "guidance_interval": (
            scale != 1 or sampling.weaker or sampling.classifier,
            "a guidance_scale but 1, a classifier or a weaker run",
        ),
        "classifier_scale": (sampling.classifier, "sampling.classifier=RUN"),
        "guidance_t_max": (sampling.classifier, "sampling.classifier=RUN"),
        "weaker_scale": (sampling.weaker, "sampling.weaker=RUN"),
    }
    for name, (is_there, what) in needs.items():
        if sampling[name] != usual[name] and not is_there:
            raise errors.Refusal(
                f"sampling.{name}={sampling[name]!r} has no effect without {what}: "
                f"give that, or leave it {usual[name]!r}"
            )
    for name, guided in ((CLASSIFIER, 0), (WEAKER, 1)):
        if sampling[name] and sampling[f"{name}_scale"] == guided:
            raise errors.Refusal(
                f"sampling.{name}_scale={guided} is no guidance: give another scale, "
                f"or leave sampling.{name} empty"
            )
    if not 0 <= sampling.guidance_rescale <= 1:
        raise errors.Refusal(
            f"sampling.guidance_rescale={sampling.guidance_rescale}: give a share of "
            "0 … 1"
        )
    if not 0 < sampling.guidance_t_max <= 1:
        raise errors.Refusal(
            f"sampling.guidance_t_max={sampling.guidance_t_max}: give a share of T, "
            "above 0 and up to 1"
        )


def _negative(config, facts) -> tuple[tuple, Any]:
    """Return what to lead away from, as a recipe and as a request has it."""
    asked = config.sampling.negative
    if config.model.text_layers:
        return prompts.negative(config, facts)[0], asked
    if not asked:
        return (), ""
    if not config.model.class_conditional:
        raise errors.Refusal(
            f"sampling.negative={asked!r} on a run without classes: leave it out"
        )
    try:
        found = class_labels.index(asked, facts.class_names)
        return (("label", found),), found
    except errors.Refusal as refusal:
        sentence = str(refusal).replace("sampling.labels", "sampling.negative")
        raise errors.Refusal(sentence) from refusal


def _interval(sampling) -> tuple[float, float]:
    given = tuple(map(float, sampling.guidance_interval))
    if len(given) != 2 or not 0 <= given[0] <= given[1] <= 1:
        raise errors.Refusal(
            f"sampling.guidance_interval={given}: give two shares of T, the lower one "
            "first, such as 0.1,0.8; guidance acts where low ≤ t/T < high"
        )
    low, high = given
    if low == high and (sampling.classifier or sampling.weaker):
        raise errors.Refusal(
            f"sampling.guidance_interval={low:g},{high:g} holds nothing, so that no "
            "other run guides: widen it, or leave sampling.classifier and "
            "sampling.weaker empty"
        )
    return low, high


def _mixings(config, facts, scale, guides) -> list[recipe_lib.Part]:
    """Return how the outputs of the branches become one."""
    sampling, parts = config.sampling, []
    if scale != 1:
        _check_branch(config, facts, scale)
        parts.append(
            recipe_lib.part("classifier_free", scale=scale)
            if scale
            else recipe_lib.part("unconditional")
        )
    if WEAKER in guides:
        parts.append(recipe_lib.part("weaker", scale=sampling.weaker_scale))
    if sampling.guidance_rescale:
        parts.append(recipe_lib.part("rescale", share=sampling.guidance_rescale))
    return parts


def _check_branch(config, facts, scale) -> None:
    """Refuse a scale but 1 where there is no other branch to lead away from."""
    if config.sampling.negative or null_label(config, facts) is not None:
        return
    if config.model.text_layers:
        if config.train.label_dropout:
            return
        remedy = (
            "it was trained without leaving captions out and has no unconditional "
            "branch; sample with scale 1, give sampling.negative=TEXT, or train a run "
            "with train.label_dropout=0.1"
        )
    elif not config.model.class_conditional:
        remedy = (
            "it has no classes to be guided to; leave it 1, or guide it by a classifier"
            " with sampling.classifier=RUN"
        )
    else:
        remedy = (
            "it was trained without label drop-out and has no unconditional branch; "
            "sample with scale 1, give sampling.negative=CLASS, or train a run with "
            "train.label_dropout=0.1"
        )
    raise errors.Refusal(f"sampling.guidance_scale={scale} on this run: {remedy}")


def _transforms(sampling, guides, kept, solver) -> list[recipe_lib.Part]:
    """Return the guidance by a classifier or CLIP, in the form of the solver."""
    if CLASSIFIER not in guides:
        return []
    form = "mean" if solver.reads == "mean" else "score"
    shares = [_share(kept, t) for t in range(kept.num_steps)]
    below = sum(share < sampling.guidance_t_max for share in shares)
    name = f"{guides[CLASSIFIER].kind}_{form}"
    return [recipe_lib.part(name, scale=sampling.classifier_scale, below=below)]


def _says_guided(path) -> bool:
    """Return whether the entries of a path are flagged already."""
    return path is not None and all(len(entry) > 3 for entry in path)


def _path(kept, path, low, high) -> samplers.Path:
    """Return the path with the entries that are guided."""
    path = tuple((t, *rest, low <= _share(kept, t) < high) for t, *rest in path)
    if not any(guided for *_, guided in path):
        shares = [_share(kept, t) for t, *_ in path]
        raise errors.Refusal(
            f"sampling.guidance_interval={low:g},{high:g}: none of the timesteps of "
            f"these {kept.num_steps} steps lies in it; they are at t/T = "
            f"{min(shares):.3g} … {max(shares):.3g}: widen it, or take more steps"
        )
    return path


def _share(kept: process.Schedule, t: int) -> float:
    """Return t/T of a step of a respaced process, by its original timestep."""
    return kept.timesteps[t] / kept.original_num_steps
