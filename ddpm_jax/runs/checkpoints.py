"""Checkpoints that count only when whole, and that are verified before use.

Orbax writes and reads the arrays; no other module knows of it. It does not verify what
it reads (a flipped bit restores as another number), so a save is published by a list of
SHA-256 digests, and a step without its list does not count:

    checkpoints/<step>/             as `orbax.checkpoint.StandardCheckpointer` reads it
    checkpoints/<step>.sha256.json  step, version, arrays, digests; written last
    checkpoints/staging-…           under way, or left by a kill: never read, cleared
    checkpoints/damaged-<step>/     failed verification; set aside, never deleted
    checkpoints/superseded-<step>/  later than a step that training rolled back to
    checkpoints/best.json           the step that scored best, which is not deleted

Several processes share the directory. Each writes and reads its part of the arrays;
process 0 alone decides what counts and tells the others, who may see its files late.
"""

import concurrent.futures
import dataclasses
import hashlib
import logging
import os
import pathlib

import jax

from ddpm_jax.core import errors
from ddpm_jax.runs import best as best_lib
from ddpm_jax.runs import checkpoint_arrays, checkpoint_files, manifests
from ddpm_jax.runtime import distributed

DATA_FILE_SIZE = 1 << 23  # bytes; what is not in a file yet is held in memory


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

    All processes make the same calls in the same order and get the same answers. Only
    `poll`, a save that failed, and leaving the context with an error concern one
    process alone.
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
        self._files = checkpoint_files.CheckpointFiles(
            directory, keep=keep, keep_every=keep_every
        )
        import orbax.checkpoint

        logging.getLogger("absl").addFilter(_not_orbax_chatter)
        self._orbax = orbax.checkpoint
        # By default every replica writes a slice of its own, which is compiled for each
        # shape and device: seconds at the first save, for little on a shared disk.
        array_handler = orbax.checkpoint.type_handlers.ArrayHandler(
            use_replica_parallel=False
        )
        registry = orbax.checkpoint.type_handlers.create_type_handler_registry(
            (jax.Array, array_handler)
        )
        self._checkpointer = orbax.checkpoint.AsyncCheckpointer(
            orbax.checkpoint.PyTreeCheckpointHandler(type_handler_registry=registry)
        )
        self._publisher = concurrent.futures.ThreadPoolExecutor(1, "checkpoints")
        self._pending: tuple[int, concurrent.futures.Future] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error: BaseException | None, traceback) -> None:
        if error is None:
            self.close()
            return
        # Other processes may not come here: nothing is agreed on with them.
        failure = self._own_failure()
        self._release()
        if failure:
            error.add_note(str(failure))  # must not hide why the context was left

    def steps(self) -> tuple[int, ...]:
        """Return the published steps in ascending order."""
        return tuple(_by_first(self._files.steps))

    def fingerprint(self, step: int) -> str:
        """Return what changes with the content of a published checkpoint.

        It is the SHA-256 of its manifest, which holds the digests of its files: nothing
        large is read.
        """
        return _by_first(
            lambda: hashlib.sha256(self._files.manifest(step).read_bytes()).hexdigest()
        )

    def numerics(self, step: int) -> int:
        """Return the `runtime.NUMERICS` that a checkpoint was written with."""
        return _by_first(
            lambda: manifests.read(self._files.manifest(step)).get("numerics", 1)
        )

    def latest_step(self) -> int | None:
        """Return the newest published step, or None."""
        steps = self.steps()
        return steps[-1] if steps else None

    def best(self) -> best_lib.Best | None:
        """Return what `keep_best` was given last, if that step is still published."""

        def fields():
            best = self._files.best()
            return best and dataclasses.asdict(best)

        found = _by_first(fields)
        return found and best_lib.Best(**found)

    def keep_best(self, best: best_lib.Best) -> None:
        """Protect a step from being deleted, in place of the one before.

        Waits until it is published: best.json never names a step that is not there.

        Raises:
            Refusal: its save failed.
        """
        self.wait()
        _by_first(lambda: best_lib.write(self._files.root, best))

    def check_room(self, abstract_state, *, saves: int, best: bool = False) -> None:
        """Refuse, before a run, a disk that cannot hold what will be kept at once.

        Args:
            abstract_state: pytree of the shapes that will be saved.
            saves: how many saves the run will make.
            best: whether the best one may be kept besides the newest.

        Raises:
            Refusal: tells what is needed and what is free.
        """
        size = checkpoint_arrays.size_of(abstract_state)
        _by_first(lambda: self._files.check_room(size, saves, best=best))

    def save(self, step: int, state) -> None:
        """Start to save a state; it is published when it is wholly on the disk.

        A checkpoint of the same step is replaced; later steps, which are there only if
        training rolled back to an earlier one, are set aside.

        Args:
            step: the step, ≥ 0.
            state: pytree of `jax.Array`; may be donated after the call.

        Raises:
            Refusal: the state holds NaN or infinity, the disk is too full or cannot be
                written, or the save before this one failed.
        """
        try:
            self.wait()
        except errors.Refusal:
            if not self._files.has_moved():  # else this save takes its place
                raise
        described = checkpoint_arrays.describe(state)
        self._check_finite(step, state)
        size = checkpoint_arrays.size_of(state)
        root = _by_first(lambda: self._files.prepare(step, size))
        self._files.root = pathlib.Path(root)
        try:
            self._checkpointer.save(
                self._files.staging(step),
                args=self._orbax.args.PyTreeSave(
                    state, ocdbt_target_data_file_size=DATA_FILE_SIZE
                ),
            )
        except OSError as error:
            raise self._files.failure(step, error) from error
        self._pending = step, self._publisher.submit(self._finish, step, described)

    def poll(self) -> None:
        """Raise the error of a background save that has failed; never wait.

        Raises:
            Refusal: the save failed, as seen by this process.
        """
        if self._pending and self._pending[1].done() and self._pending[1].exception():
            raise self._own_failure()

    def wait(self) -> None:
        """Wait until the save under way is published.

        Raises:
            Refusal: the save failed, as seen by this process. It has to end then: the
                others wait for its part.
        """
        if self._pending is None:
            return
        failure = self._own_failure()
        if failure:
            raise failure
        distributed.barrier("a checkpoint is published")

    def close(self) -> None:
        """Wait for the save under way and release the threads.

        Raises:
            Refusal: the save failed.
        """
        try:
            self.wait()
        finally:
            self._release()

    def restore(
        self, abstract_state, step: int | None = None, *, partial: bool = False
    ) -> Restored:
        """Read the newest checkpoint that is whole.

        Every file is compared with its digest first. A damaged checkpoint is renamed to
        `damaged-<step>` and the one before it is used.

        Args:
            abstract_state: pytree of `jax.ShapeDtypeStruct` with the sharding to
                restore to, not necessarily the one saved; the first device if None.
            step: this step only.
            partial: read the leaves of `abstract_state` alone. What is saved and not
                wanted stands there as None or (), as in
                `abstract.replace(opt_state=())`; no list or tuple may have such holes.

        Raises:
            Refusal: there is no checkpoint, none is whole, or the whole one holds other
                arrays than `abstract_state`.
        """
        self.wait()
        wanted = checkpoint_arrays.describe(abstract_state)

        def fits(candidate: int, saved: dict[str, str]) -> None:
            # Orbax would convert another dtype without a word.
            misfit = checkpoint_arrays.first_misfit(saved, wanted, partial=partial)
            if misfit:
                raise errors.Refusal(
                    f"the checkpoint of step {candidate} in {self._files.root} does "
                    f"not fit: {misfit}; use the config it was trained with, or "
                    "another --workdir"
                )

        chosen, skipped = _by_first(lambda: self._files.choose(step, fits))
        return Restored(
            self._read(chosen, checkpoint_arrays.placed(abstract_state), partial),
            chosen,
            tuple((number, reason) for number, reason in skipped),
        )

    def _check_finite(self, step: int, state) -> None:
        found = distributed.all_values(checkpoint_arrays.first_not_finite(state))
        path = next(filter(None, found), None)
        if path:
            raise errors.Refusal(
                f"the checkpoint of step {step} is not written: {path} holds NaN or "
                "infinity; earlier checkpoints are untouched: start a new run from one "
                "with a lower --config.train.learning_rate"
            )

    def _finish(self, step: int, described: dict[str, str]) -> None:
        self._checkpointer.wait_until_finished()
        if distributed.is_first():
            self._files.publish(step, described)

    def _own_failure(self) -> errors.Refusal | None:
        """Wait for this process's part of the save under way; return why it failed."""
        if self._pending is None:
            return None
        step, future = self._pending
        error = future.exception()
        self._pending = None
        if error is None:
            return None
        failure = self._files.failure(step, error)
        failure.__cause__ = error
        return failure

    def _read(self, step: int, abstract_state, partial: bool):
        item = abstract_state
        if partial:
            item = self._orbax.tree.serialize_tree(abstract_state)  # without the holes
        read = self._checkpointer.restore(
            self._files.folder(step),
            args=self._orbax.args.PyTreeRestore(
                item,
                self._orbax.checkpoint_utils.construct_restore_args(item),
                partial_restore=partial,
            ),
        )
        leaves = checkpoint_arrays.by_path(read)
        treedef = jax.tree.structure(abstract_state)
        paths = checkpoint_arrays.by_path(abstract_state)
        return jax.tree.unflatten(treedef, [leaves[path] for path in paths])

    def _release(self) -> None:
        self._publisher.shutdown()
        self._checkpointer.close()
        self._files.close()


def _by_first(look):
    """Return what process 0 finds by `look()`, or refuse with it, on all processes."""
    found = refusal = None
    if distributed.is_first():
        try:
            found = look()
        except errors.Refusal as error:
            refusal = error
    found, reason = distributed.from_first([found, refusal and str(refusal)])
    if refusal:
        raise refusal
    if reason:
        raise errors.Refusal(reason)
    return found


def _not_orbax_chatter(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or "orbax" not in record.pathname
