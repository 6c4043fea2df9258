"""Editing from Python: what the modes of the same names do, with arrays.

Nothing is written. Results are those of the commands, to the bit, for the same settings
and the same batches.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from ddpm_jax.builders import chains
from ddpm_jax.config import arguments
from ddpm_jax.core import errors, flags
from ddpm_jax.editing import (
    animation,
    between,
    drift_film,
    edit,
    films,
    inpainting,
    measurements,
    plans,
    restoration,
    training_film,
    variation,
)
from ddpm_jax.evaluation import likelihood, progressive

# Fields of config.editing that are about files.
OF_FILES = ("keep_size", "box", "invert", "paste", "format", "fps", "degrade")


class Edits:
    """The part of `Run` that edits.

    Pictures are as `Run.sample` returns images, and so are results. All take as options

        labels=None, seed=0, weights="auto"   as `Run.sample` does
        editing=None     fields of config.editing, such as {"method": "guided"}
        steps=50, …      fields of config.sampling by name
    """

    @flags.as_program()
    @arguments.naming()
    def inpaint(
        self,
        pictures,
        holes,
        *,
        variants: int | None = None,
        **options,
    ) -> np.ndarray:
        """Return pictures whose holes were made anew, [n, variants, H, W, C].

        Known pixels come back as they were given.

        Args:
            pictures: [n, H, W, C] or [H, W, C].
            holes: bool [n, H, W] or [H, W], True where something is to be made.
            variants: results of each picture, 4 by default.
            **options: see `Edits`.

        Raises:
            Refusal: pictures, holes or settings that do not fit.
        """
        config = self._editing("inpaint", options, variants=variants)
        given = plans.from_arrays(pictures, self._trained.facts)
        given = inpainting.with_holes(given, holes)
        return self._results(inpainting.plan, config, given)

    @flags.as_program()
    @arguments.naming()
    def restore(
        self,
        measured,
        operator,
        *,
        noise: float | None = None,
        draws: int | None = None,
        likelihood: str | None = None,
        **options,
    ) -> np.ndarray:
        """Return pictures drawn from p(x | y), y = A x + noise, [n, draws, H, W, C].

        Args:
            measured: y, floats [n, ...] or [...] of one, in the values of the networks:
                black is −1 and white 1. What lies in the holes of a mask is not read.
            operator: A: a name such as "superres:2", see `editing.operators`; a linear
                function of JAX arrays [B, H, W, C], whose adjoint is found by
                differentiation; two functions, the second the adjoint; or a value of
                `diffusion.operators`.
            noise: σ_y, the deviation of the noise, in the same values; 0 by default.
            draws: results of each measurement, 16 by default.
            likelihood: "dps", "pigdm" or "exact", see docs/restore.md.
            **options: see `Edits`.

        Raises:
            Refusal: measurements or settings that do not fit, or an operator that is
                not linear or whose adjoint is another's.
        """
        config = self._editing(
            "restore",
            options,
            noise=noise,
            draws=draws,
            likelihood=likelihood,
        )
        facts = self._trained.facts
        given = measurements.from_arrays(config, facts, measured, operator)
        return self._results(restoration.plan, config, given)

    @flags.as_program()
    @arguments.naming()
    def vary(
        self,
        pictures=None,
        *,
        strength: float | None = None,
        variants: int | None = None,
        **options,
    ) -> np.ndarray:
        """Return variations of pictures, [n, variants, H, W, C], or of a sample.

        Args:
            pictures: [n, H, W, C] or [H, W, C]; None with
                editing={"from_sample": "3@120"}.
            strength: share of T up to which noise is added, 0 … 1.
            variants: results of each picture, 4 by default.
            **options: see `Edits`.

        Raises:
            Refusal: pictures or settings that do not fit.
        """
        given = plans.from_arrays(pictures, self._trained.facts)
        own = {"variants": variants, "strength": strength}
        config = self._editing("vary", options, **own)
        return self._results(variation.plan, config, given)

    @flags.as_program()
    @arguments.naming()
    def interpolate(
        self,
        pictures=None,
        *,
        frames: int | None = None,
        **options,
    ) -> np.ndarray:
        """Return the way from one picture to another, [rows, frames, H, W, C].

        Args:
            pictures: [2, H, W, C]; None with editing={"samples": (0, 7)}.
            frames: of each row, 8 by default.
            **options: see `Edits`.

        Raises:
            Refusal: pictures or settings that do not fit.
        """
        given = plans.from_arrays(pictures, self._trained.facts)
        config = self._editing("interpolate", options, frames=frames)
        return self._results(between.plan, config, given)

    @flags.as_program()
    @arguments.naming()
    def animate(
        self,
        kind: str | None = None,
        *,
        frames: int | None = None,
        variants: int | None = None,
        **options,
    ) -> np.ndarray:
        """Return the frames of an animation, [frames, images, H, W, C].

        Args:
            kind: "denoise", the usual one, whose images are first all x_t, then all
                estimates of x_0; "walk", "morph", "guidance", or "train", the run's own
                grids. Of a run on points of the plane: pictures of its drift.
            frames: their number; the usual one of the kind by default.
            variants: images of each frame, 4 by default.
            **options: see `Edits`.

        Raises:
            Refusal: a kind that the run cannot give, or settings that do not fit.
        """
        own = {"kind": kind, "frames": frames, "variants": variants}
        config = self._editing("animate", options, **own)
        films.check(config)
        if config.editing.kind == "train":
            run_dir = self._trained.run_dir
            return training_film.frames(run_dir, config.editing.frames).values
        if chains.is_of_plane(config, self._trained.facts):
            return drift_film.frames(self._opened(config)).values
        planned = films.plan(config, self._trained.facts)
        return animation.in_memory(self._opened(config), planned)

    @flags.as_program()
    @arguments.naming()
    def compress(self, *, variants: int = 4, **evaluation) -> "Compressed":
        """Return how good test images are after how many bits.

        Args:
            variants: test images that are returned as a receiver sees them.
            **evaluation: fields of config.evaluation, such as num_images=500.

        Raises:
            Refusal: a run whose images have no bits, or test images that are not there.
        """
        variants = arguments.plain("variants", variants)
        own = {"variants": variants}
        config = self._asked("compress()", editing=own, evaluation=evaluation)
        edit.check_run(config, self._trained.facts, "compress")
        trained = dataclasses.replace(self._trained, config=config)
        prepared = likelihood.prepare(config, trained.facts)
        dataset, num_images, schedule = prepared
        used = self._weights(config.evaluation.weights)
        table = progressive.scored(trained, used, prepared)
        count = min(variants, num_images)
        coded = progressive.coded(trained, used, dataset, count, schedule)
        columns = map(np.array, zip(*table, strict=True))
        return Compressed(*columns, *coded)

    # ---- what they share ----

    def _editing(self, mode, options, **own):
        """Return the config of an edit with what was given."""
        settings = dict(options)
        editing = arguments.by_name("editing", settings.pop("editing", None))
        labels = arguments.labels_tuple(settings.pop("labels", None))
        seed, weights = settings.pop("seed", 0), settings.pop("weights", "auto")
        given = {**editing, **{k: v for k, v in own.items() if v is not None}}
        for name in OF_FILES:
            if name in given:
                raise errors.Refusal(
                    f"editing.{name} is of files, which --mode={mode} reads and "
                    "writes: leave it out"
                )
        config = self._asked(
            f"{mode}()",
            labels=labels,
            seed=seed,
            weights=weights,
            editing=given,
            **arguments.of_settings(settings),
        )
        edit.check_run(config, self._trained.facts, mode)
        return config

    def _opened(self, config, shape=None) -> edit.Opened:
        del shape  # that of the run: arrays are not fitted
        trained, used = self._trained, self._weights(config.sampling.weights)
        return edit.Opened(config, trained.facts, trained, used)

    def _results(self, make, config, given) -> np.ndarray:
        facts = self._trained.facts
        opened, plan = plans.planned(make, config, facts, given, self._opened)
        return plan.in_rows(plans.in_memory(opened, plan))


class Compressed(NamedTuple):
    """What progressive coding costs and gives (DDPM, section 4.3).

    Attributes:
        timestep, bits, rate, rmse: a row for each state in the order of sending, and
            one for the image itself; see `evaluation.rate_distortion.Step`.
        image, estimate, shown: test images [n, H, W, C], what they are taken for at
            some timesteps [S, n, H, W, C], and these timesteps [S].
    """

    timestep: np.ndarray
    bits: np.ndarray
    rate: np.ndarray
    rmse: np.ndarray
    image: np.ndarray
    estimate: np.ndarray
    shown: np.ndarray
