"""Animations: of a chain, of latents, of classes, of guidance, of training."""

from ddpm_jax.builders import chains
from ddpm_jax.data import images as images_lib
from ddpm_jax.editing import animation as animation_lib
from ddpm_jax.editing import drift_film, edit, films, reel, training_film
from ddpm_jax.metrics import motion
from ddpm_jax.report import animations, grids
from ddpm_jax.runtime import distributed, files, image_grid
from ddpm_jax.runtime.console import say

STRIP_COLUMNS = 5  # of a drift


def run(config, workdir) -> None:
    """Write RUN/edits/<tag>/animation.<format> and strip.png.

    Args:
        config: of the run; editing.kind says of what.
        workdir: the run.

    Raises:
        Refusal: a kind that the run cannot give, or settings that do not fit.
    """
    editing = config.editing
    animations.check(editing.format, editing.fps)
    films.check(config)
    saved = edit.read_run(config, workdir, "animate")
    if chains.is_of_plane(config, saved.facts):
        drift_film.plan(config, saved.facts)  # refuses before anything is loaded
        store, film = drift_film.make(edit.open_run(saved, config))
        if distributed.is_first():
            shown = grids.evenly(list(range(len(film.marks))), STRIP_COLUMNS)
            film = reel.Film(*film, 1, False, shown)
            write(film, config, store.folder)
        return
    if editing.kind == "train":
        store, captions, marks = training_film.make(saved, editing.frames)
        if distributed.is_first():
            frames = store.first(len(marks))
            numbers = list(range(len(frames)))
            shown = grids.evenly(numbers, training_film.STRIP_COLUMNS)
            film = reel.Film(frames, captions, marks, 1, False, shown)
            write(film, config, store.folder)
        return
    animation = films.plan(config, saved.facts)
    opened = edit.open_run(saved, config)
    store, is_finished = animation_lib.make(opened, animation)
    if is_finished and distributed.is_first():
        frames = store.first(len(animation.frames))
        write(reel.film_of(animation, frames), config, store.folder)


# ---- what is written -----------------------------------------------------------------


def write(film: reel.Film, config, folder) -> None:
    """Write animation and strip, and say where they are and how much they move."""
    editing = config.editing
    shown = images_lib.shown(film.frames)
    said = motion.motion(shown, is_loop=film.is_loop)
    say(f"neighbouring frames are {said}")
    pictures, fps, data = reel.encoded(film, editing)
    if editing.format == "gif" and pictures[0].shape[-1] > 1:
        say(
            "note: a GIF has 256 colours; --format=webp keeps all, from the same frames"
        )
    path = folder / animations.NAMES[editing.format]
    files.write_bytes(path, data)
    image_grid.write_png(folder / "strip.png", reel.strip(film._replace(frames=shown)))
    height, width = pictures[0].shape[:2]
    seconds = len(pictures) / fps
    say(f"frames:    {folder / 'samples.npz'}")
    say(f"strip:     {folder / 'strip.png'}")
    say(
        f"animation: {path} ({len(pictures)} frames of {width}x{height}, "
        f"{seconds:.1f} s{', a loop' if film.is_loop else ''})"
    )
