"""What the tabs of the page ask for: settings → a command line and its job."""

from ddpm_jax.builders import class_labels
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors
from ddpm_jax.demo.player import BATCH, Job, Player
from ddpm_jax.diffusion import solvers

EVERY_CLASS = "every class in turn"
MOST_SEED = 2**32 - 1
MOST_IMAGES = 16


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
    """Return whether the run has a branch without a class, for guidance."""
    return build_network.null_label(player.config, player.facts) is not None


def sample(
    player: Player,
    *,
    seed: float = 0,
    label: str = EVERY_CLASS,
    method: str = "",
    steps: float = 0,
    guidance: float = 1.0,
    eta: float = 0.0,
    number: float = BATCH,
) -> Job:
    """Return the job of `number` samples.

    Args:
        player: the run.
        seed: 0 … 2³²−1.
        label: name of a class, or `EVERY_CLASS`.
        method: of the solver; "" for the run's.
        steps: 1 … T; 0 for the run's.
        guidance: scale; 1 is none.
        eta: of ddim; other solvers take none.
        number: of images, a multiple of `BATCH`.

    Raises:
        Refusal: settings that the run cannot meet.
    """
    wanted = whole("the number of images", number, 1, MOST_IMAGES)
    line, config = player.understood(
        "sample",
        f"--config.sampling.num_samples={wanted}",
        f"--config.sampling.batch_size={BATCH}",
        *settings(
            player,
            seed=seed,
            labels=() if label == EVERY_CLASS else (label,),
            method=method,
            steps=steps,
            guidance=guidance,
            eta=eta,
        ),
    )
    recipe = build_sampling.recipe(config, player.facts)
    return Job(line, config, recipe, wanted)


def settings(player, *, seed=0, labels=(), method="", steps=0, guidance=1.0, eta=0.0):
    """Return the arguments of config.sampling that the page decides."""
    method = method or player.config.sampling.method
    errors.choose("solver", solvers.SOLVERS, method)
    count = whole("steps", steps, 0, player.config.diffusion.num_steps)
    count = count or player.config.sampling.steps
    given = [f"--config.sampling.seed={whole('the seed', seed, 0, MOST_SEED)}"]
    given.append(f"--config.sampling.method={method}")
    if count:
        given.append(f"--config.sampling.steps={count}")
    given.append(f"--config.sampling.eta={float(eta) if method == 'ddim' else 0.0:g}")
    if labels:
        asked = ",".join(class_argument(name, player.facts) for name in labels)
        given.append(f"--config.sampling.labels={asked}")
    if can_guide(player):
        given.append(f"--config.sampling.guidance_scale={float(guidance):g}")
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
            f"{what} is {value!r}: give a whole number of {least} … {most}"
        )
    return number
