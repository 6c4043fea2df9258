"""The files of checkpoints: which count, which are whole, which are kept.

Everything here looks at the disk or changes it and knows of no array and of no other
process: `ddpm_jax.runs.checkpoints` lets process 0 alone call it.
"""

import os
import shutil
from pathlib import Path

from ddpm_jax.core import errors
from ddpm_jax.runs import best as best_lib
from ddpm_jax.runs import manifests, place
from ddpm_jax.runtime import files
from ddpm_jax.runtime.console import say

STAGING = "staging-"
MANIFEST_SUFFIX = ".sha256.json"
FREE_SPACE_FACTOR = 1.2
"""Room asked for beside the arrays: metadata, and what others write meanwhile."""


class Unusable(Exception):
    """Why one checkpoint cannot be restored, while another may."""


class CheckpointFiles:
    """The directory `<run>/checkpoints`, which need not exist.

    Attributes:
        root: its absolute path; another one after the run around it was renamed.
    """

    def __init__(self, root: str | os.PathLike, *, keep: int, keep_every: int):
        """Set how many of the newest steps, and multiples of what, are kept.

        Raises:
            Refusal: `keep` or `keep_every` is out of range.
        """
        if keep < 1 or keep_every < 0:
            raise errors.Refusal(
                f"checkpoints need keep ≥ 1 and keep_every ≥ 0, not keep={keep} and "
                f"keep_every={keep_every}"
            )
        self.root = Path(root).absolute()
        run = self.root.parent
        self._place = place.Place(run) if run.is_dir() else None
        self._keep = keep
        self._keep_every = keep_every

    def close(self) -> None:
        """Let the directory go."""
        if self._place:
            self._place.close()

    # Names and places.

    def has_moved(self) -> bool:
        """Return whether the run was renamed since its directory was opened."""
        moved = self._place and self._place.moved_to()
        return bool(moved) and moved != self.root.parent

    def folder(self, step: int) -> Path:
        """Return where the checkpoint of a step is once it is published."""
        return self.root / str(step)

    def manifest(self, step: int) -> Path:
        """Return where its list of digests is."""
        return self.root / f"{step}{MANIFEST_SUFFIX}"

    def staging(self, step: int) -> Path:
        """Return where it is written."""
        return self.root / f"{STAGING}{step}"

    def steps(self) -> list[int]:
        """Return the published steps in ascending order."""
        return [
            step
            for step in self._named_steps()
            if self.manifest(step).exists() and self.folder(step).is_dir()
        ]

    def _named_steps(self) -> list[int]:
        """Return every step with a folder or a manifest, published or not."""
        if not self.root.is_dir():
            return []
        names = {
            path.name.removesuffix(MANIFEST_SUFFIX) for path in self.root.iterdir()
        }
        return sorted(int(name) for name in names if name.isdecimal())

    def best(self) -> best_lib.Best | None:
        """Return what best.json says if that step is still published."""
        best = best_lib.read(self.root)
        return best if best and best.step in self.steps() else None

    # Room.

    def check_room(self, size: int, saves: int, *, best: bool = False) -> None:
        """Refuse a disk that is too small for what will lie on it at once.

        An old checkpoint is deleted only after the new one counts, so there is one more
        than are kept. What `keep_every` adds for ever is not counted.

        Args:
            size: bytes of the arrays of one checkpoint.
            saves: how many are yet to be written.
            best: whether the best one may be kept besides.
        """
        kept = self._keep + best
        count = min(max(kept - len(self.steps()), 0) + 1, saves + best)
        self._check_free("the checkpoints of this run need", count * size)

    def prepare(self, step: int, size: int) -> str:
        """Make the directory ready for the save of a step; return its path.

        That of a run that was renamed meanwhile is the one under its new name.

        Only this save has to fit: to refuse it for the sake of later ones would cost
        the steps taken.

        Args:
            step: of the checkpoint.
            size: bytes of its arrays.

        Raises:
            Refusal: the disk is too full, or cannot be written.
        """
        if self.has_moved():
            self.root = self._place.moved_to() / self.root.name
            say(f"the run was renamed: step {step} is saved in {self.root}")
        self._check_free(f"the checkpoint of step {step} needs", size)
        try:
            # A run that is gone is not made again: it would be one without its config.
            self.root.mkdir(parents=self._place is None, exist_ok=True)
            self._clear_staging()
        except OSError as error:
            raise self.failure(step, error) from error
        return str(self.root)

    def _check_free(self, what: str, size: int) -> None:
        place = next(p for p in (self.root, *self.root.parents) if p.exists())
        needed = int(size * FREE_SPACE_FACTOR)
        free = shutil.disk_usage(place).free
        if needed > free:
            raise errors.Refusal(
                f"{what} {_readable(needed)} and {self.root} has "
                f"{_readable(free)} free: make room there, keep fewer checkpoints or "
                "choose another --workdir"
            )

    def failure(self, step: int, error: BaseException) -> errors.Refusal:
        """Return the sentence about a save that failed."""
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return errors.Refusal(
            f"the checkpoint of step {step} could not be saved in {self.root}: "
            f"{reason}; earlier checkpoints are untouched"
        )

    # Writing.

    def publish(self, step: int, arrays: dict[str, str]) -> None:
        """Make a checkpoint that lies whole in `staging(step)` count.

        Args:
            step: its step; one of the same step is replaced, later ones are set aside.
            arrays: {path of a leaf: "dtype[shape]"}.

        Raises:
            OSError: the disk failed.
        """
        if self.has_moved():
            raise OSError(f"{self.root.parent} was renamed while it was written")
        staging, folder = self.staging(step), self.folder(step)
        manifest = manifests.describe(staging, step, arrays)
        for later in [other for other in self.steps() if other > step]:
            self._set_aside(later, "superseded")
        if folder.exists():
            self.manifest(step).unlink(missing_ok=True)
            folder.rename(self.root / f"{STAGING}replaced-{step}")
        staging.rename(folder)
        files.sync_directory(self.root)
        manifests.write(self.manifest(step), manifest)
        self._delete_old()

    def _delete_old(self) -> None:
        """Delete what is no longer kept; that it stays is no failed save."""
        try:
            self._delete_all_but_kept()
        except OSError as error:
            self._warn(error)

    def _warn(self, error: OSError) -> None:
        say(
            f"warning: {error.filename or self.root} could not be removed "
            f"({error.strerror}): the checkpoint is saved; remove it when it is free"
        )

    def _delete_all_but_kept(self) -> None:
        best = self.best()
        for step in self.steps()[: -self._keep]:
            is_kept = self._keep_every and step % self._keep_every == 0
            if is_kept or (best and step == best.step):
                continue
            # In this order a reader, or a kill in between, sees a step that does not
            # count rather than a damaged one.
            self.manifest(step).unlink()
            self.folder(step).rename(self.root / f"{STAGING}deleted-{step}")
        self._clear_staging()

    def _clear_staging(self) -> None:
        for path in self.root.glob(f"{STAGING}*"):
            try:
                shutil.rmtree(path)
            except OSError as error:  # a network disk where somebody reads it
                self._warn(error)

    def _set_aside(self, step: int, word: str) -> Path:
        target, count = self.root / f"{word}-{step}", 1
        while target.exists() or Path(f"{target}{MANIFEST_SUFFIX}").exists():
            count += 1
            target = self.root / f"{word}-{step}-{count}"
        self.manifest(step).rename(f"{target}{MANIFEST_SUFFIX}")
        if self.folder(step).exists():
            self.folder(step).rename(target)
        return target

    # Reading.

    def choose(self, step: int | None, fits) -> tuple[int, list[tuple[int, str]]]:
        """Return the newest whole step and why newer ones are skipped.

        Every file is compared with its digest, also those of arrays that nobody asked
        for: one file holds parts of many arrays. A damaged checkpoint is renamed to
        `damaged-<step>`.

        Args:
            step: this one only, or None.
            fits: called with a whole step and its arrays {path: "dtype[shape]"};
                refuses those that are not wanted.

        Raises:
            Refusal: there is no checkpoint, none is whole, or the whole one does not
                fit.
        """
        candidates = reversed(self._named_steps()) if step is None else [step]
        skipped = []
        for candidate in candidates:
            try:
                manifest = self._verify(candidate)
            except Unusable as problem:
                skipped.append((candidate, str(problem)))
                continue
            fits(candidate, manifest["arrays"])
            return candidate, skipped
        raise self._nothing_to_restore(step, skipped)

    def _verify(self, step: int) -> dict:
        """Return the manifest of a whole checkpoint; set a damaged one aside."""
        path, folder = self.manifest(step), self.folder(step)
        if not path.exists():
            missing = "its save was not finished" if folder.exists() else "not there"
            raise Unusable(f"{missing}: there is no {path.name}")
        try:
            manifest = manifests.read(path)
            damage = manifests.first_difference(folder, manifest["files"])
        except ValueError:
            damage = f"{path.name} is damaged"
        except PermissionError as error:
            raise errors.Refusal(
                f"{error.filename} cannot be read by this user: change its mode, or "
                "go on as the user who wrote it"
            ) from error
        except OSError as error:
            damage = f"{error.filename or folder} cannot be read ({error.strerror})"
        if damage is None:
            return manifest
        if not path.exists():
            raise Unusable("deleted by the run it belongs to while it was being read")
        try:
            aside = f"set aside as {self._set_aside(step, 'damaged').name}"
        except OSError as error:
            aside = f"could not be renamed ({error.strerror})"
        raise Unusable(f"{damage}; {aside}")

    def _nothing_to_restore(self, step, skipped) -> errors.Refusal:
        reasons = "; ".join(f"step {number}: {reason}" for number, reason in skipped)
        if step is not None:
            known = ", ".join(map(str, self.steps())) or "none"
            return errors.Refusal(
                f"no usable checkpoint of step {step} in {self.root} ({reasons}): "
                f"published steps are {known}"
            )
        if skipped:
            return errors.Refusal(
                f"no usable checkpoint in {self.root} ({reasons}): restore one from a "
                "copy, or train again in another --workdir"
            )
        return errors.Refusal(
            f"no checkpoint in {self.root}: train first with `python -m "
            f"ddpm_jax.main --config=… --workdir={self.root.parent}`"
        )


def _readable(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"
