"""The tab that makes animations."""

from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors
from ddpm_jax.demo import jobs, tab_inpaint, view
from ddpm_jax.demo.player import BATCH, Job, Player
from ddpm_jax.editing import animation, films, reel

TITLE = "Animate"
MOST_FRAMES = 48
KINDS = {
    "denoise": "a chain from noise to image, and what the network takes it for",
    "walk": "through the latents of four seeds",
    "morph": "from class to class",
    "guidance": "the guidance scale, up and down",
}
WITHOUT_NOISE = ("walk", "morph")  # the others keep the solver that is chosen
reason = tab_inpaint.reason


def kinds(player) -> list[str]:
    """Return the kinds that a run can give."""
    found, classes = ["denoise", "walk"], jobs.class_choices(player)
    if 1 < len(classes) <= animation.MOST_CLASSES:  # that it passes all
        found.append("morph")
    if classes and jobs.can_guide(player):
        found.append("guidance")
    return found


def job_of(
    player: Player,
    *,
    kind: str = "denoise",
    frames: float = 16,
    label: str = jobs.EVERY_CLASS,
    method: str = "",
    guidance: float = 1.0,
    **settings,
) -> Job:
    """Return the job of an animation of four images.

    Args:
        player: the run.
        kind: a key of `KINDS`.
        frames: 2 … 48; those of "denoise" are at most the states of a chain.
        label, method, guidance, **settings: see `jobs.settings`.

    Raises:
        Refusal: a kind or settings that the run cannot meet.
    """
    errors.choose("kind of animation", KINDS, kind)
    if kind in WITHOUT_NOISE:
        method = method if method in jobs.WITHOUT_NOISE else "ddim"
        settings["eta"] = 0.0
    # A morph passes classes of its own, and both have a guidance of their own.
    labels = () if kind == "morph" or label == jobs.EVERY_CLASS else (label,)
    guidance = 1.0 if kind in ("morph", "guidance") else guidance
    count = jobs.whole("the number of frames", frames, 2, MOST_FRAMES)
    given = (
        f"--variants={BATCH}",
        f"--config.sampling.batch_size={BATCH}",
        *jobs.settings(
            player, labels=labels, method=method, guidance=guidance, **settings
        ),
    )
    if kind == "denoise":
        count = min(count, states(player, given))
    line, config = player.understood(
        "animate", f"--kind={kind}", f"--frames={count}", *given
    )
    films.check(config)
    film = films.plan(config, player.facts)
    return Job(line, config, film.recipe, len(film.frames), animation=film)


def states(player: Player, given) -> int:
    """Return how many states a chain has, x_T and the image among them.

    Args:
        player: the run.
        given: arguments of the command line that makes it.
    """
    _, config = player.understood("animate", *given)
    path = build_sampling.recipe(config, player.facts).whole_path
    return len(animation.states_on(path))


def add(tab) -> None:
    """Add settings and the animation."""
    gr, player = tab.gr, tab.player
    known = kinds(player)
    info = "; ".join(f"{kind}: {KINDS[kind]}" for kind in known)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            kind = gr.Radio(known, value=known[0], label="Of what", info=info)
            frames = gr.Slider(
                2,
                MOST_FRAMES,
                value=16,
                step=1,
                label="Frames",
                info="of a chain, at most one more than its steps",
            )
            found = tab.settings(eta=False)
            button, stop = tab.buttons("Animate", "animate")
        with gr.Column(scale=2, min_width=280):
            outputs = tab.results("animate")

    def make(kind, frames, *values):
        given = dict(zip(found, values, strict=True))
        job = job_of(player, kind=kind, frames=frames, **given)
        return job, lambda images: shown(job, images)

    tab.runs(button, stop, make, [kind, frames, *found.values()], outputs)


def gif(job: Job, images) -> tuple[bytes, tuple[int, int]]:
    """Return the file of all frames [F, n, H, W, C], and its (height, width)."""
    film = reel.film_of(job.animation, images)
    pictures, _, data = reel.encoded(film, job.config.editing)
    return data, pictures[0].shape[:2]


def shown(job: Job, images) -> str:
    """Return the last frame [n, H, W, C], or the animation where all are there."""
    if len(images) != job.wanted or images.ndim == 4:
        return view.pictures(images, [""] * len(images), "frame")
    data, size = gif(job, images)
    said = f"animation of {job.wanted} frames, {job.config.editing.kind}"
    return view.picture(data, said, "animation.gif", size)
