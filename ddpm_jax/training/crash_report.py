"""What is written down about a step whose loss or gradient was not finite."""

import jax

from ddpm_jax.runtime import distributed, sharding, versions
from ddpm_jax.runtime.console import say
from ddpm_jax.training import blocks, nonfinite


class CrashReporter:
    """Writes crashes/step_<n>.json: t, images and norms of a non-finite step."""

    def __init__(self, condition_spec, run_dir, order, dataset, *, command: str):
        """Keep what names the images of a step.

        Args:
            condition_spec: what the network reads besides x and t.
            run_dir: the run.
            order: its data order.
            dataset: its training split.
            command: what goes on with the run.
        """
        self._run_dir = run_dir
        self._order = order
        self._dataset = dataset
        self._command = command
        # Of arrays, such as texts or images, a record of numbers could say little.
        self._scalars = [key for key, s in condition_spec.items() if s.shape == ()]
        self._norms = jax.jit(lambda params: blocks.norms(params)[0])

    def __call__(self, bad: nonfinite.NonFiniteStep, state) -> None:
        """Write the note of one step; every process calls it.

        Args:
            bad: the step.
            state: a state at most a few steps later.
        """
        norms = sharding.to_host(self._norms(state.params))
        if not distributed.is_first():
            return
        ids = self._order.indices(bad.step - 1)
        batch = self._dataset.fetch(ids) if self._scalars else {}
        record = nonfinite.crash_record(
            bad,
            block_names=blocks.block_names(state.params),
            image_ids=ids,
            condition={key: batch[key] for key in self._scalars},
            param_norms=norms,
            versions=versions.versions(),
            command=self._command,
        )
        path = self._run_dir.write_crash(bad.step, record)
        say(
            f"step {bad.step} was not finite: its update is skipped"
            + (f", see {path}" if path else "")
        )
