"""What the tabs of the page ask for: settings → a command line and its job."""

import math

from ddpm_jax.builders import class_labels
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import conditions, errors
from ddpm_jax.demo.player import BATCH, Job, Player
from ddpm_jax.diffusion import solvers

EVERY_CLASS = "every class in turn"
MOST_SEED = 2**32 - 1
MOST_IMAGES = 16
MOST_SCALE = 100.0  # of guidance
MOST_PROMPT = 500  # characters
MOST_SHOWN = 40  # characters of a value that is refused
WITHOUT_NOISE = ("ddim", "heun", "dpmpp_2m", "dpmpp_2s")  # at η = 0


def methods(config, *, deterministic: bool = False) -> list[str]:
    """Return the solvers, that of the run first where it is one of them."""
    known = WITHOUT_NOISE if deterministic else tuple(solvers.SOLVERS)
    own = [name for name in known if name == config.sampling.method]
    return [*own, *(name for name in known if name not in own)]


def class_choices(player: Player) -> list[str]:
    """Return the classes to choose from, [] for a run without any."""
    if not player.config.model.class_conditional:
        return []
    return list(player.facts.class_names)


def can_guide(player: Player) -> bool:
    """Return whether the run has a branch without a condition, for guidance."""
    specs = player.opened.trained.network.condition_spec
    return bool(specs) and conditions.has_none(specs)


def reads_text(player: Player) -> bool:
    """Return whether the run makes images of prompts."""
    return player.config.model.text_layers > 0


def captions(player: Player) -> tuple[str, ...]:
    """Return captions that the run keeps of its data, () for none."""
    text = player.facts.text
    return () if text is None else text.captions


def sample(
    player: Player, *, label: str = EVERY_CLASS, number: float = BATCH, **given
) -> Job:
    """Return the job of `number` samples.

    Args:
        player: the run.
        label: name of a class, or `EVERY_CLASS`.
        number: of images, a multiple of `BATCH`.
        **given: see `settings`.

    Raises:
        Refusal: settings that the run cannot meet.
    """
    wanted = whole("the number of images", number, 1, MOST_IMAGES)
    line, config = player.understood(
        "sample",
        f"--config.sampling.num_samples={wanted}",
        f"--config.sampling.batch_size={BATCH}",
        *settings(player, labels=() if label == EVERY_CLASS else (label,), **given),
    )
    recipe = build_sampling.recipe(config, player.facts)
    return Job(line, config, recipe, wanted)


def settings(
    player,
    *,
    prompt: str | None = None,
    seed: float = 0,
    labels: tuple[str, ...] = (),
    method: str = "",
    steps: float = 0,
    guidance: float = 1.0,
    eta: float | None = None,
) -> list[str]:
    """Return the arguments that the page decides, but for those of a tab.

    Args:
        player: the run.
        prompt: of runs that read text, perhaps the empty one; None for captions that
            the run keeps.
        seed: 0 … 2³²−1.
        labels: names of classes, in turn; () for all.
        method: of the solver; "" for the run's.
        steps: 1 … T; 0 for the run's.
        guidance: scale; 1 is none.
        eta: of ddim, 0 … 1, None for the run's; other solvers take none.

    Raises:
        Refusal: numbers out of range, an unknown solver or class, a long prompt.
    """
    method = method or player.config.sampling.method
    errors.choose("solver", solvers.SOLVERS, method)
    count = whole("steps", steps, 0, player.config.diffusion.num_steps)
    count = count or player.config.sampling.steps
    given = []
    if can_guide(player):
        scale = real("the guidance scale", guidance, 0, MOST_SCALE)
        given.append(f"--config.sampling.guidance_scale={scale:g}")
    if reads_text(player) and (prompt is not None or not captions(player)):
        given.append(f"--prompt={_text('the prompt', prompt or '')}")
    given.append(f"--config.sampling.seed={whole('the seed', seed, 0, MOST_SEED)}")
    given.append(f"--config.sampling.method={method}")
    if count:
        given.append(f"--config.sampling.steps={count}")
    own = player.config.sampling.eta
    asked = own if eta is None else real("η", eta, 0, 1)
    asked = asked if method == "ddim" else 0.0
    if asked != own:
        given.append(f"--config.sampling.eta={asked:g}")
    if labels:
        asked = ",".join(class_argument(name, player.facts) for name in labels)
        given.append(f"--config.sampling.labels={asked}")
    return given


def class_argument(name: str, facts) -> str:
    """Return how a class is named on a command line without doubt.

    Raises:
        Refusal: there is no such class.
    """
    names = list(facts.class_names)
    if name not in names:
        raise errors.Refusal(f"there is no class {name!r}: choose one of the list")
    number = names.index(name)
    is_plain = name.isalnum() and (not name.isdecimal() or name == str(number))
    if is_plain and class_labels.indices((name,), names) == (number,):
        return name
    return f"index:{number}"


def whole(what: str, value, least: int, most: int) -> int:
    """Return a number of the page as a whole one.

    Raises:
        Refusal: none, or one that is out of range.
    """
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or number != value or not least <= number <= most:
        raise errors.Refusal(
            f"{what} is {_shown(value)}: give a whole number of {least} … {most}"
        )
    return number


def real(what: str, value, least: float, most: float) -> float:
    """Return a number of the page.

    Raises:
        Refusal: none, or one that is out of range.
    """
    try:
        number = math.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not least <= number <= most:
        raise errors.Refusal(
            f"{what} is {_shown(value)}: give a number of {least:g} … {most:g}"
        )
    return number


def _text(what: str, value) -> str:
    """Return words of the page in one line.

    Raises:
        Refusal: no words, or more than the page's box holds, which the browser alone
            looks after.
    """
    if not isinstance(value, str) or len(value) > MOST_PROMPT:
        raise errors.Refusal(
            f"{what} is {_shown(value)}: give words of at most {MOST_PROMPT} characters"
        )
    return " ".join(value.split())


def _shown(value) -> str:
    try:
        said = repr(value)
    except ValueError:  # of more digits than Python writes
        return "a number of thousands of digits"
    return said if len(said) <= MOST_SHOWN else f"{said[: MOST_SHOWN - 1]}…"
