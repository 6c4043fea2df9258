"""Generated images on disk: written in parts, continued after an interruption.

The folder is named by `sampling.naming`.

    samples/<tag>/request.json            what decides the images
    samples/<tag>/parts/<from>-<to>.npy   finished batches, until all are there
    samples/<tag>/samples.npz             arr_0 [N, ...], arr_1 labels

The images, or examples of any other shape, are uint8, uint16 or float32, as
`data.images.to_stored` makes them; those of one folder are alike. The archive is
streamed from the parts: memory is that of one part for any N.
"""

import contextlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import content
from ddpm_jax.runtime import distributed, files
from ddpm_jax.sampling import naming

ROWS_AT_A_TIME = 256
DTYPES = (np.uint8, np.uint16, np.float32)


class SampleStore:
    """The images of one request, numbered from 0."""

    def __init__(
        self,
        folder: Path,
        request: dict,
        *,
        differences: Callable[[dict], list[str]] | None = None,
    ):
        """Open or continue a folder.

        Args:
            folder: samples/<tag>.
            request: everything that decides image i.
            differences: a stored request → what tells it from this one, for requests
                of earlier versions; None compares them key by key.

        Raises:
            Refusal: the folder holds images of another request.
        """
        self.folder = folder
        self.archive = folder / "samples.npz"
        self._parts = folder / "parts"
        request_file = folder / "request.json"
        plain = json.loads(json.dumps(request))
        if request_file.exists():
            saved = json.loads(request_file.read_text())
            compare = differences or (lambda saved: naming.compared(saved, plain))
            _check_same_request(compare(saved), folder)
        else:
            self._parts.mkdir(parents=True, exist_ok=True)
            files.write_json(request_file, plain)

    def count(self) -> int:
        """Return how many images 0 … n−1 exist."""
        return max([self._archived(), *(stop for _, stop, _ in self._runs())])

    def is_finished(self, num_samples: int) -> bool:
        """Return whether the archive holds at least `num_samples` images."""
        return self._archived() >= num_samples

    @property
    def dtype(self) -> np.dtype | None:
        """The type of the images that are there, None if there is none.

        Data of 16 bits was once kept with 8: such an archive goes on as it began.
        """
        there = self._kind()
        return there and there[0]

    def add(self, start: int, images: np.ndarray) -> None:
        """Keep images start … start+n−1; a kill leaves whole parts only.

        Args:
            start: number of the first.
            images: uint8, uint16 or float32 [n, ...], like those that are there.

        Raises:
            ValueError: another type.
            Refusal: another type or shape than those that are there.
        """
        if images.dtype not in DTYPES:
            raise ValueError(f"{images.dtype} images: give uint8, uint16 or float32")
        if not distributed.is_first():
            return
        if there := self._kind():
            _check_alike(there, (images.dtype, images.shape[1:]), self.folder)
        name = f"{start:09d}-{start + len(images):09d}.npy"
        buffer = io.BytesIO()
        np.save(buffer, images, allow_pickle=False)
        files.write_bytes(self._parts / name, buffer.getvalue())

    def finish(self, num_samples: int, labels: Sequence[int] | None) -> None:
        """Stream the first `num_samples` images into the archive, drop their parts.

        Args:
            labels: sequence [num_samples] written as arr_1, or None.

        Raises:
            ValueError: some of the images have not been added.
        """
        if self.count() < num_samples:
            raise ValueError(f"{self.count()} of {num_samples} images have been added")
        dtype, shape = self._kind()
        images = self.rows(num_samples)
        temporary = self.archive.with_suffix(".npz.tmp")
        with files.naming(self.archive), open(temporary, "wb") as file:
            with zipfile.ZipFile(file, "w", allowZip64=True) as archive:
                with archive.open("arr_0.npy", "w", force_zip64=True) as member:
                    _write_header(member, dtype, (num_samples, *shape))
                    for rows in images:
                        given = (rows.dtype, rows.shape[1:])
                        _check_alike((dtype, shape), given, self.folder)
                        member.write(rows.tobytes())
                if labels is not None:
                    with archive.open("arr_1.npy", "w") as member:
                        np.lib.format.write_array(member, np.asarray(labels, np.int64))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.archive)
        files.sync_directory(self.folder)
        for stop, part in self._all_parts():
            if stop <= num_samples:  # later ones are the user's too
                part.unlink()

    def first(self, count: int) -> np.ndarray:
        """Return the first images, [count, ...] as they are stored."""
        return np.concatenate(list(self.rows(count)))

    def _archived(self) -> int:
        if not self.archive.exists():
            return 0
        with _opened(self.archive) as member:
            return _read_header(member)[1][0]

    def _kind(self) -> tuple[np.dtype, tuple[int, ...]] | None:
        """Return type and shape of one of the images that are there, from a header."""
        if self.archive.exists():
            with _opened(self.archive) as member:
                dtype, (_, *shape) = _read_header(member)
            return dtype, tuple(shape)
        for _, part in self._all_parts():
            with open(part, "rb") as file:
                dtype, (_, *shape) = _read_header(file)
            return dtype, tuple(shape)
        return None

    def _runs(self) -> Iterator[tuple[int, int, Path]]:
        """Yield (start, stop, part) that continue the archive without a gap."""
        reached = self._archived()
        for stop, part in self._all_parts():
            start = int(part.stem.partition("-")[0])
            if start <= reached < stop:
                yield reached - start, stop, part
                reached = stop

    def _all_parts(self) -> list[tuple[int, Path]]:
        """Return (stop, part) of every part, by first image."""
        parts = sorted(self._parts.glob("*.npy"))
        return [(int(part.stem.partition("-")[2]), part) for part in parts]

    def rows(self, count: int) -> Iterator[np.ndarray]:
        """Yield the images 0 … count−1 in order, a few rows at a time."""
        remaining = count
        if self.archive.exists():
            for rows in self._archived_rows(count):
                yield rows
                remaining -= len(rows)
        for skipped, _, part in self._runs():
            if remaining <= 0:
                return
            rows = np.load(part, allow_pickle=False)[skipped:][:remaining]
            yield rows
            remaining -= len(rows)

    def _archived_rows(self, count: int) -> Iterator[np.ndarray]:
        with _opened(self.archive) as member:
            dtype, (available, *shape) = _read_header(member)
            size = int(np.prod(shape)) * dtype.itemsize
            wanted = min(available, count)
            for done in range(0, wanted, ROWS_AT_A_TIME):
                rows = min(ROWS_AT_A_TIME, wanted - done)
                data = np.frombuffer(member.read(rows * size), dtype)
                yield data.reshape(rows, *shape)


def _check_same_request(changed, folder):
    if changed:
        raise errors.Refusal(
            f"{folder} holds other images: {'; '.join(changed)}; move that folder "
            "away, or choose another sampling.seed"
        )


def _check_alike(there, given, folder):
    """Refuse (type, shape) of images that are not those of the images there."""
    if there != given:
        kinds = [f"{dtype} images of {list(shape)}" for dtype, shape in (there, given)]
        raise errors.Refusal(
            f"{folder} holds {kinds[0]}, and {kinds[1]} cannot be added: move that "
            "folder away, or choose another sampling.seed"
        )


@contextlib.contextmanager
def _opened(archive):
    """Open the images of an archive."""
    with zipfile.ZipFile(archive) as members, members.open("arr_0.npy") as member:
        yield member


def _write_header(member, dtype, shape):
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, header)


def _read_header(member):
    """Return type and shape of an array file and leave its data next to be read."""
    shape, _, dtype = content.npy_header(member)
    return dtype, shape
