"""Checkpoints that count only when whole, and that are verified before use.

Orbax writes and reads the arrays; no other module knows of it. It does not verify what
it reads (a flipped bit restores as another number), so a save is published by a list of
SHA-256 digests, and a step without its list does not count:

    checkpoints/<step>/             as `orbax.checkpoint.StandardCheckpointer` reads it
    checkpoints/<step>.sha256.json  step, version, arrays, digests; written last
    checkpoints/staging-…           under way, or left by a kill: never read, cleared
    checkpoints/damaged-<step>/     failed verification; set aside, never deleted
    checkpoints/superseded-<step>/  later than a step that training went back to
    checkpoints/best.json           the step that scored best, which is not deleted
"""

import concurrent.futures
import dataclasses
import logging
import os
import shutil
from pathlib import Path

import jax

from ddpm_jax.core import errors
from ddpm_jax.runtime import best as best_lib
from ddpm_jax.runtime import files, manifests

DATA_FILE_SIZE = 1 << 23  # bytes; what is not in a file yet is held in memory
STAGING = "staging-"
MANIFEST_SUFFIX = ".sha256.json"
FREE_SPACE_FACTOR = 1.2
"""Room asked for beside the arrays: metadata, and what others write meanwhile."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """What `Checkpoints.restore` found.

    Attributes:
        state: the arrays, shaped and placed as asked.
        step: the step they belong to.
        skipped: (step, reason) of every newer checkpoint that could not be used.
    """

    state: object
    step: int
    skipped: tuple[tuple[int, str], ...]


class Checkpoints:
    """The checkpoints of one run; a context manager that leaves no save behind.

    A save copies the arrays to the host, returns, and goes on in the background, where
    it is verified, published and older steps are deleted. A failed save is an error of
    the next call, whichever that is; leaving the context waits for the last one.
    """

    def __init__(
        self, directory: str | os.PathLike, keep: int = 3, keep_every: int = 0
    ):
        """Open a directory, which need not exist.

        Args:
            directory: `<run>/checkpoints`.
            keep: how many of the newest steps to keep, ≥ 1.
            keep_every: steps divisible by it are kept for ever; 0 keeps none.

        Raises:
            Refusal: `keep` or `keep_every` is out of range.
        """
        if keep < 1 or keep_every < 0:
            raise errors.Refusal(
                f"checkpoints need keep ≥ 1 and keep_every ≥ 0, not keep={keep} and "
                f"keep_every={keep_every}"
            )
        import orbax.checkpoint

        logging.getLogger("absl").addFilter(_not_orbax_chatter)
        self._root = Path(directory).absolute()
        self._keep = keep
        self._keep_every = keep_every
        self._args = orbax.checkpoint.args
        handler = orbax.checkpoint.PyTreeCheckpointHandler()
        self._writer = orbax.checkpoint.AsyncCheckpointer(handler)
        self._reader = orbax.checkpoint.StandardCheckpointer()
        self._publisher = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._pending: tuple[int, concurrent.futures.Future] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error: BaseException | None, traceback) -> None:
        try:
            self.close()
        except errors.Refusal as failure:
            if error is None:
                raise
            error.add_note(str(failure))  # must not hide why the context was left

    def steps(self) -> tuple[int, ...]:
        """Return the published steps in ascending order."""
        return tuple(
            step
            for step in self._named_steps()
            if self._manifest(step).exists() and self._folder(step).is_dir()
        )

    def latest_step(self) -> int | None:
        """Return the newest published step, or None."""
        steps = self.steps()
        return steps[-1] if steps else None

    def best(self) -> best_lib.Best | None:
        """Return what `keep_best` was told last, if that step is still published."""
        best = best_lib.read(self._root)
        return best if best and best.step in self.steps() else None

    def keep_best(self, best: best_lib.Best) -> None:
        """Protect a step from being deleted, in place of the one before.

        Waits until it is published: best.json never names a step that is not there.

        Raises:
            Refusal: its save failed.
        """
        self.wait()
        best_lib.write(self._root, best)

    def save(self, step: int, state) -> None:
        """Start to save a state; it is published when it is wholly on the disk.

        A checkpoint of the same step is replaced; later steps, which are there only if
        training went back to an earlier one, are set aside.

        Args:
            step: the step, ≥ 0.
            state: pytree of finite `jax.Array`; may be donated after the call.

        Raises:
            Refusal: the disk is too full or cannot be written, or the save before this
                one failed.
        """
        self.wait()
        arrays = _describe(state)
        self._check_space(step, sum(leaf.nbytes for leaf in jax.tree.leaves(state)))
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._clear_staging()
            self._writer.save(
                self._staging(step),
                args=self._args.PyTreeSave(
                    state, ocdbt_target_data_file_size=DATA_FILE_SIZE
                ),
            )
        except OSError as error:
            raise self._failure(step, error) from error
        self._pending = step, self._publisher.submit(self._publish, step, arrays)

    def poll(self) -> None:
        """Raise the error of a background save that has failed; never wait.

        Raises:
            Refusal: the save failed.
        """
        if self._pending and self._pending[1].done():
            self.wait()

    def wait(self) -> None:
        """Wait until the save under way is published.

        Raises:
            Refusal: the save failed.
        """
        if self._pending is None:
            return
        step, future = self._pending
        error = future.exception()
        self._pending = None
        if error is not None:
            raise self._failure(step, error) from error

    def close(self) -> None:
        """Wait for the save under way and release the threads.

        Raises:
            Refusal: the save failed.
        """
        try:
            self.wait()
        finally:
            self._publisher.shutdown()
            self._writer.close()
            self._reader.close()

    def restore(self, abstract_state, step: int | None = None) -> Restored:
        """Read the newest checkpoint that is whole.

        Every file is compared with its digest first. A damaged checkpoint is renamed to
        `damaged-<step>` and the one before it is used.

        Args:
            abstract_state: pytree of `jax.ShapeDtypeStruct` with the sharding to
                restore to, not necessarily the one saved; the first device if None.
            step: this step only.

        Raises:
            Refusal: there is no checkpoint, none is whole, or the whole one holds other
                arrays than `abstract_state`.
        """
        self.wait()
        candidates = reversed(self._named_steps()) if step is None else [step]
        skipped = []
        for candidate in candidates:
            try:
                manifest = self._verify(candidate)
            except _Unusable as problem:
                skipped.append((candidate, str(problem)))
                continue
            self._check_fit(candidate, manifest["arrays"], _describe(abstract_state))
            state = self._reader.restore(
                self._folder(candidate), jax.tree.map(_placed, abstract_state)
            )
            return Restored(state, candidate, tuple(skipped))
        raise self._nothing_to_restore(step, skipped)

    # Names and places.

    def _folder(self, step: int) -> Path:
        return self._root / str(step)

    def _manifest(self, step: int) -> Path:
        return self._root / f"{step}{MANIFEST_SUFFIX}"

    def _staging(self, step: int) -> Path:
        return self._root / f"{STAGING}{step}"

    def _named_steps(self) -> list[int]:
        """Return every step with a folder or a manifest, published or not."""
        if not self._root.is_dir():
            return []
        names = {
            path.name.removesuffix(MANIFEST_SUFFIX) for path in self._root.iterdir()
        }
        return sorted(int(name) for name in names if name.isdecimal())

    # Writing.

    def _check_space(self, step: int, size: int) -> None:
        place = next(p for p in (self._root, *self._root.parents) if p.exists())
        needed = int(size * FREE_SPACE_FACTOR)
        free = shutil.disk_usage(place).free
        if needed > free:
            raise errors.Refusal(
                f"the checkpoint of step {step} needs {_readable(needed)} and "
                f"{self._root} has {_readable(free)} free: make room there, keep "
                "fewer checkpoints or choose another --workdir"
            )

    def _publish(self, step: int, arrays: dict[str, str]) -> None:
        self._writer.wait_until_finished()
        staging, folder = self._staging(step), self._folder(step)
        manifest = manifests.describe(staging, step, arrays)
        for later in [other for other in self.steps() if other > step]:
            self._set_aside(later, "superseded")
        if folder.exists():
            self._manifest(step).unlink(missing_ok=True)
            folder.rename(self._root / f"{STAGING}replaced-{step}")
        staging.rename(folder)
        files.sync_directory(self._root)
        manifests.write(self._manifest(step), manifest)
        self._delete_old()

    def _clear_staging(self) -> None:
        for path in self._root.glob(f"{STAGING}*"):
            shutil.rmtree(path)

    def _delete_old(self) -> None:
        best = self.best()
        for step in self.steps()[: -self._keep]:
            is_kept = self._keep_every and step % self._keep_every == 0
            if is_kept or (best and step == best.step):
                continue
            # In this order a reader, or a kill in between, sees a step that does not
            # count rather than a damaged one.
            self._manifest(step).unlink()
            self._folder(step).rename(self._root / f"{STAGING}deleted-{step}")
        self._clear_staging()

    def _failure(self, step: int, error: BaseException) -> errors.Refusal:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return errors.Refusal(
            f"the checkpoint of step {step} could not be saved in {self._root}: "
            f"{reason}; earlier checkpoints are untouched"
        )

    # Reading.

    def _verify(self, step: int) -> dict:
        """Return the manifest of a whole checkpoint; set a damaged one aside."""
        path, folder = self._manifest(step), self._folder(step)
        if not path.exists():
            missing = "its save was not finished" if folder.exists() else "not there"
            raise _Unusable(f"{missing}: there is no {path.name}")
        try:
            manifest = manifests.read(path)
            damage = manifests.first_difference(folder, manifest["files"])
        except ValueError:
            damage = f"{path.name} is damaged"
        except PermissionError as error:
            raise errors.Refusal(f"{error.filename} cannot be read") from error
        except OSError as error:
            damage = f"{error.filename or folder} cannot be read ({error.strerror})"
        if damage is None:
            return manifest
        if not path.exists():
            raise _Unusable("deleted by the run it belongs to while it was being read")
        try:
            aside = f"set aside as {self._set_aside(step, 'damaged').name}"
        except OSError as error:
            aside = f"could not be renamed ({error.strerror})"
        raise _Unusable(f"{damage}; {aside}")

    def _set_aside(self, step: int, word: str) -> Path:
        target, count = self._root / f"{word}-{step}", 1
        while target.exists() or Path(f"{target}{MANIFEST_SUFFIX}").exists():
            count += 1
            target = self._root / f"{word}-{step}-{count}"
        self._manifest(step).rename(f"{target}{MANIFEST_SUFFIX}")
        if self._folder(step).exists():
            self._folder(step).rename(target)
        return target

    def _check_fit(
        self, step: int, saved: dict[str, str], wanted: dict[str, str]
    ) -> None:
        """Refuse other arrays: Orbax would convert another dtype without a word."""
        differences = [
            f"{path} is {saved.get(path, 'missing')} in the checkpoint and "
            f"{wanted.get(path, 'missing')} here"
            for path in sorted(saved.keys() | wanted.keys())
            if saved.get(path) != wanted.get(path)
        ]
        if differences:
            more = len(differences) - 1
            raise errors.Refusal(
                f"the checkpoint of step {step} in {self._root} does not fit: "
                f"{differences[0]}{f' (and {more} more)' * (more > 0)}; use the config "
                "it was trained with, or another --workdir"
            )

    def _nothing_to_restore(self, step, skipped) -> errors.Refusal:
        told = "; ".join(f"step {number}: {reason}" for number, reason in skipped)
        if step is not None:
            known = ", ".join(map(str, self.steps())) or "none"
            return errors.Refusal(
                f"no usable checkpoint of step {step} in {self._root} ({told}): "
                f"published steps are {known}"
            )
        if skipped:
            return errors.Refusal(
                f"no usable checkpoint in {self._root} ({told}): restore one from a "
                "copy, or train again in another --workdir"
            )
        return errors.Refusal(
            f"no checkpoint in {self._root}: train first with `python -m "
            f"ddpm_jax.main --config=… --workdir={self._root.parent}`"
        )


class _Unusable(Exception):
    """Why one checkpoint cannot be restored, while another may."""


def _describe(state) -> dict[str, str]:
    """Return {path: "dtype[shape]"} of every leaf."""
    described = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
            # A NumPy or Python number would come back with another type.
            raise TypeError(f"{name} is a {type(leaf).__name__}, not a jax.Array")
        described[name] = f"{leaf.dtype}{list(leaf.shape)}"
    return described


def _placed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    if leaf.sharding is not None:
        return leaf
    # Without a sharding Orbax would look for the devices of the run that saved it.
    first = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=first)


def _not_orbax_chatter(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or "orbax" not in record.pathname


def _readable(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
