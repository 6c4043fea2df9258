"""The Python interface: open a run and sample from it, train, bring a network.

run = ddpm_jax.load("runs/digits")
images = run.sample(64, labels=3, seed=0)
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ddpm_jax.api import edits
from ddpm_jax.builders import cascade, chains, kinds, trained_run
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.config import arguments, paths, reading, rules
from ddpm_jax.core import flags
from ddpm_jax.data import images as images_lib
from ddpm_jax.diffusion import process, reverse
from ddpm_jax.models import custom, functional
from ddpm_jax.runtime import compilation, devices
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import generation, sampler

network = custom.own_network


def load(
    workdir: str | os.PathLike, *, network: functional.Network | None = None
) -> "Run":
    """Open a trained run with its newest whole checkpoint.

    Args:
        workdir: the run's directory; nothing is written into it.
        network: the network that the run was trained with, where that was one of your
            own (see `ddpm_jax.network`).

    Raises:
        Refusal: no run or no checkpoint there, or another network.
    """
    with flags.as_program():
        devices.check()
        compilation.enable_cache()
        return Run(trained_run.open_run(workdir, network=network))


def train(
    config,
    workdir: str | os.PathLike,
    *,
    network: functional.Network | None = None,
) -> "Run":
    """Train, or go on training, the run in `workdir`; return it, opened.

    Args:
        config: "file.py" or "file.py:variant", or what `ddpm_jax.config.base()` gives,
            changed.
        workdir: directory of the run.
        network: a network of your own instead of the U-Net that config.model describes,
            see `ddpm_jax.network`.

    Raises:
        Refusal: anything that does not permit to go on.
    """
    from ddpm_jax.modes import train as mode

    if isinstance(config, str | os.PathLike):
        config = reading.from_file(os.fspath(config))
    config = config.copy_and_resolve_references()
    reading.read_betas(config)
    rules.check_types(config)
    paths.expand(config)
    rules.check_values(config)
    with flags.as_program():
        mode.run(config, workdir, network)
    return load(workdir, network=network)


class Run(edits.Edits):
    """A trained run, opened by `load`; it edits too, see `edits.Edits`.

    Attributes:
        step: optimizer steps that the weights have taken.
        class_names: by label; () without classes.
        schedule: the process that the network was trained on.
        network: `network.apply(params, x, t, condition) → output`.
    """

    def __init__(self, trained: trained_run.TrainedRun):
        self._trained = trained
        self._told = set()
        self.step = trained.step
        self.class_names = trained.facts.class_names
        self.schedule = chains.exact_schedule(trained.config, trained.state.params)
        self.network = trained.network

    @property
    def config(self):
        """A copy of the run's config."""
        return self._trained.config.copy_and_resolve_references()

    @flags.as_program()
    def params(self, weights: str = "auto"):
        """Return the parameters, a nested dictionary of float32 arrays.

        Args:
            weights: "ema", "raw", or "auto" for the EMA once it has forgotten the
                initial weights; which was taken is said.
        """
        return self._weights(weights).params

    def _weights(self, weights):
        found = self._trained.weights(weights, field="weights")
        if found.why not in self._told:
            self._told.add(found.why)
            say(f"step {self.step}, {found.why}")
        return found

    @flags.as_program()
    @arguments.naming()
    def sample(
        self,
        num: int,
        *,
        labels: int | str | Sequence[int | str] | None = None,
        seed: int = 0,
        steps: int | None = None,
        method: str | None = None,
        spacing: str | None = None,
        eta: float | None = None,
        temperature: float | None = None,
        guidance_scale: float | None = None,
        low_res=None,
        weights: str = "auto",
        batch_size: int | None = None,
        progress: Callable[[int, int], None] = lambda done, num: None,
        on_step: Callable[[sampler.Step], None] | None = None,
        trajectory: Sequence[int] | None = None,
        **settings,
    ) -> "np.ndarray | Trajectory":
        """Return `num` images [num, H, W, C], or examples of another shape.

        They are as --mode=sample keeps them: uint8; uint16 for data of 16 bits;
        float32 for continuous data.

        Image i is the image i that --mode=sample makes with the same settings. What is
        not given, but for seed and weights, is as in the run's config.sampling.

        Args:
            labels: class name or index, or several, which the images take in turn. A
                number that is one class's name and another's index is refused:
                "name:1" and "index:1" say which.
            seed: decides every draw, together with i.
            steps: 1 … T timesteps that the sampler keeps.
            method: "ancestral", "ddim", "heun", "dpmpp_2m" or "dpmpp_2s".
            spacing: of the steps, "even", "trailing", "quadratic" or "logsnr"; "" for
                the method's own.
            eta: share of noise of ddim, 0 … 1.
            temperature: factor of x_T, above 0; below 1 the images vary less.
            guidance_scale: 1 is plain conditional, 0 unconditional.
            low_res: what an upsampler enlarges: a run, or several in turn; a folder or
                archive of images; or the images, uint8 [at least num, h, w, C].
            weights: see `params`.
            batch_size: images made at a time.
            progress: called with (images made, num) after every batch.
            on_step: called with a `Step` (done, whole, state x_t, estimate x̂_0) after
                every entry of the path of each batch; what it raises ends the sampling.
            trajectory: positions on the way, 0 for the first step; with it a
                `Trajectory` is returned: the images and what they came from.
            **settings: other fields of config.sampling by name, such as
                classifier="runs/digits_classifier".

        Raises:
            Refusal: a setting that the run cannot meet.
        """
        num = arguments.plain("num", num)
        config = self._asked(
            num_samples=num,
            labels=arguments.labels_tuple(labels),
            seed=seed,
            steps=steps,
            method=method,
            spacing=spacing,
            eta=eta,
            temperature=temperature,
            guidance_scale=guidance_scale,
            low_res=arguments.paths_of(low_res),
            weights=weights,
            batch_size=batch_size,
            **arguments.of_settings(settings),
        )
        facts = self._trained.facts
        pictures = low_res if hasattr(low_res, "dtype") else None
        given = cascade.given(config, facts, images=pictures)
        if given is not None:
            given.check_count(num, "num")
        recipe = kinds.sampled(config).recipe(config, facts, given=given)
        # The loop that keeps images on disk has taken the signal for itself.
        if given is not None and not given.source.make(num):
            raise KeyboardInterrupt("stopped while the images to enlarge were made")
        parts = self._made(
            config,
            recipe,
            num,
            given=given,
            trajectory=arguments.positions(trajectory),
            progress=progress,
            on_step=on_step,
        )
        levels = facts.levels
        images = np.concatenate(
            [images_lib.to_stored(made.images, levels) for made in parts]
        )
        if trajectory is None:
            return images
        snapshots = ([getattr(m, f) for m in parts] for f in ("states", "estimates"))
        return Trajectory(images, *(np.concatenate(s, axis=1) for s in snapshots))

    def _made(self, config, recipe, num, *, given, trajectory, progress, on_step):
        """Return what a recipe makes, part by part."""
        trained, used = self._trained, self._weights(config.sampling.weights)
        made_by = kinds.sampled(config).make_sampler(
            recipe,
            config,
            trained.facts,
            trained.network,
            trained.mesh,
            weights=used,
            given=given,
            trajectory=trajectory,
        )
        size = min(config.sampling.batch_size, num)
        parts = []
        for start, made in generation.batches(
            made_by,
            used.params,
            start=0,
            stop=num,
            batch_size=sampler.rounded_batch(size, trained.mesh),
            on_step=on_step,
        ):
            parts.append(made)
            progress(start + len(made.images), num)
        return parts

    @flags.as_program()
    @arguments.naming()
    def denoiser(self, *, steps: int | None = None, weights: str = "auto", labels=None):
        """Return x̂_0 as a function, for experiments with `ddpm_jax.diffusion`.

        Args:
            steps: 1 … T steps that the process is cut down to, spaced as in the run's
                config.sampling; all T by default.
            weights: see `params`.
            labels: int32 [B], or a condition by key; None for an unconditional run.

        Returns:
            `(tables, denoise)`: the tables of the process, and the callable
            `(x_t [B, ..., C], t [B]) → reverse.Prediction` that samplers take with
            these tables; t counts the steps of this process.

        Raises:
            Refusal: a number of steps that the process does not have.
        """
        config, params = self._trained.config, self.params(weights)
        schedule = self.schedule
        if steps is not None:
            schedule = build_process.respaced(
                self._asked("denoiser()", steps=steps), "sampling"
            )
        tables = process.tables(schedule)
        return tables, reverse.denoiser(
            tables,
            lambda x_t, t_seen: self.network.apply(params, x_t, t_seen, labels),
            prediction=config.diffusion.prediction,
            variance=config.diffusion.variance,
            x_0_hooks=build_sampling.hooks(config),
        )

    def _asked(self, where="sample()", *, editing=None, evaluation=None, **fields):
        """Return the config with what was given of sampling, editing, evaluation."""
        config = self.config
        given = {n: value for n, value in fields.items() if value is not None}
        given = arguments.plain_fields(given)
        if "steps" in given:
            config.sampling.respacing = ""  # one replaces the other
        nested = config.to_dict()
        nested["sampling"].update(given)
        nested["editing"].update(arguments.plain_fields(editing or {}))
        nested["evaluation"].update(arguments.plain_fields(evaluation or {}))
        config = reading.from_dict(nested, where=where)
        rules.check_types(config)
        rules.check_values(config)
        return config


class Trajectory(NamedTuple):
    """Images and what they looked like on the way.

    Attributes:
        images: [num, ...], as `Run.sample` returns them alone.
        states: float32 [S, num, ...], x_t after the positions asked for.
        estimates: float32 [S, num, ...], x̂_0 at these positions.
    """

    images: np.ndarray
    states: np.ndarray
    estimates: np.ndarray
