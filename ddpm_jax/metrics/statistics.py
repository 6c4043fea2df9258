"""Reference statistics: means and covariances of real images, and what they are of.

Published files are read as they are: `VIRTUAL_*.npz` of ADM (`mu`, `sigma`, `mu_s`,
`sigma_s`, images in `arr_0`) and the .npz of pytorch-fid and clean-fid (`mu`, `sigma`).
Ours have the same names and say besides what they were made with.
"""

import dataclasses
import io
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.metrics import features as features_lib
from ddpm_jax.metrics import resize
from ddpm_jax.runtime import files, home

KEYS = {"pool": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
IMAGES = "arr_0"
RECORD = "record"
"""JSON in a file of ours; files of others have none."""


@dataclasses.dataclass(frozen=True, eq=False)
class ReferenceStatistics:
    """Gaussians of the features of real images.

    Attributes:
        gaussians: by feature, "pool" and where known "spatial", (mean float64 [D],
            covariance float64 [D, D]).
        num_images: n; None where the file does not say.
        network: name of the feature network.
        fingerprint: of its weights; "" where the file does not say.
        resize: a key of `resize.RULES`, or "" for networks that do not resize.
        provenance: what the images were, for cards: data set, split, content hash, ….
    """

    gaussians: dict[str, tuple[np.ndarray, np.ndarray]]
    num_images: int | None
    network: str
    fingerprint: str
    resize: str
    provenance: dict[str, object]

    @property
    def notes(self) -> list[str]:
        """Return what a reader of a distance to this reference should know."""
        assumed = self.provenance.get("assumed")
        notes = [f"of the reference was assumed: {assumed}"] if assumed else []
        dimension = len(self.gaussians["pool"][0])
        if self.num_images is None or self.num_images > dimension:
            return notes
        return [
            *notes,
            f"the reference has {self.num_images} images for {dimension} features: its "
            "covariance is rank deficient, and distances to it depend on that number",
        ]


def of_measured(
    measured: features_lib.Measured,
    network: features_lib.FeatureNetwork,
    provenance: Mapping[str, object],
) -> ReferenceStatistics:
    """Return the statistics of what a pass over real images left.

    Raises:
        Refusal: fewer than two images.
    """
    gaussians = {}
    for name in measured.groups:
        moments = measured.moments(name)
        gaussians[name] = (moments.mean, moments.covariance)
    return ReferenceStatistics(
        gaussians=gaussians,
        num_images=measured.num_images,
        network=network.name,
        fingerprint=network.fingerprint,
        resize=network.resize,
        provenance=dict(provenance),
    )


def save(path: str | os.PathLike, statistics: ReferenceStatistics) -> None:
    """Write an .npz that `load`, ADM's evaluator and pytorch-fid can read.

    Raises:
        OSError: the directory cannot be written.
    """
    arrays = {}
    for name, gaussian in statistics.gaussians.items():
        arrays |= dict(zip(KEYS[name], gaussian, strict=True))
    record = {
        field.name: getattr(statistics, field.name)
        for field in dataclasses.fields(statistics)
        if field.name != "gaussians"
    }
    text = json.dumps(record, sort_keys=True, default=files.to_plain)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays, **{RECORD: np.array(text)})
    files.write_bytes(path, buffer.getvalue())


def load(path: str | os.PathLike, *, assumed_resize: str = "") -> ReferenceStatistics:
    """Read reference statistics of ours, of ADM, of pytorch-fid or of clean-fid.

    Args:
        path: an .npz.
        assumed_resize: the rule of a file that does not say: without it, "tf-legacy"
            for one with spatial statistics (ADM), else "pytorch-fid".

    Raises:
        Refusal: no such file, not one of these, NaN, an unknown or contradicted rule.
    """
    with _open(path) as archive:
        members = archive.files
        gaussians = {
            name: (_read(path, archive, mean), _read(path, archive, cov))
            for name, (mean, cov) in KEYS.items()
            if mean in members and cov in members
        }
        text = _read(path, archive, RECORD) if RECORD in members else None
    if "pool" not in gaussians:
        advice = (
            "measure its images instead" if IMAGES in members else "give another file"
        )
        raise errors.Refusal(
            f"{path} holds {', '.join(members) or 'nothing'} and no reference "
            f"statistics (mu, sigma): {advice}"
        )
    for name, gaussian in gaussians.items():
        gaussians[name] = _checked(path, KEYS[name], *gaussian)
    record = _assumed(path, gaussians, assumed_resize)
    if text is not None:
        record = _recorded(path, text)
        if assumed_resize not in ("", record["resize"]):
            raise errors.Refusal(
                f"{path} was made with the resize rule {record['resize']!r}, not "
                f"{assumed_resize!r}: use that, or measure its images again"
            )
    return ReferenceStatistics(gaussians=gaussians, **record)


def check_comparable(
    reference: ReferenceStatistics,
    network: features_lib.FeatureNetwork,
    names: tuple[str, ...] = ("pool",),
) -> None:
    """Refuse to compare numbers of different feature networks or resize rules.

    Args:
        reference: from `load` or `of_measured`.
        network: what the samples are measured with.
        names: features that are to be compared.

    Raises:
        Refusal: names both sides and what to do.
    """
    if reference.network != network.name:
        raise errors.Refusal(
            f"the reference is of the feature network {reference.network!r}, the "
            f"samples of {network.name!r}: measure both with one"
        )
    if reference.resize != network.resize:
        raise errors.Refusal(
            f"the reference was resized by {reference.resize!r}, the samples by "
            f"{network.resize!r}, which moves FID by more than models differ: use "
            f"{reference.resize!r} for both"
        )
    if reference.fingerprint not in ("", network.fingerprint):
        raise errors.Refusal(
            f"the reference was made with weights {reference.fingerprint[:12]}…, the "
            f"samples with {network.fingerprint[:12]}…: measure both with the same file"
        )
    missing = [name for name in names if name not in reference.gaussians]
    if missing:
        raise errors.Refusal(
            f"the reference has no {missing[0]} statistics: use one with mu_s and "
            "sigma_s (as ADM's VIRTUAL files), or leave out sFID"
        )


def _assumed(path, gaussians, assumed_resize):
    rule = "tf-legacy" if "spatial" in gaussians else "pytorch-fid"
    if assumed_resize:
        errors.choose("resize rule", resize.RULES, assumed_resize)
        rule = assumed_resize
    return {
        "num_images": None,
        "network": features_lib.INCEPTION,
        "fingerprint": "",
        "resize": rule,
        "provenance": {
            "file": pathlib.Path(path).name,
            "assumed": f"the Inception of 2015 and the resize rule {rule}, which the "
            "file does not name",
        },
    }


def _recorded(path, text):
    try:
        record = json.loads(str(text))
    except json.JSONDecodeError as error:
        raise errors.Refusal(
            f"the record in {path} is no JSON ({error}): make the statistics again"
        ) from error
    names = {field.name for field in dataclasses.fields(ReferenceStatistics)}
    names.remove("gaussians")
    if not isinstance(record, dict) or record.keys() != names:
        raise errors.Refusal(
            f"the record in {path} does not hold {', '.join(sorted(names))}: make the "
            "statistics again"
        )
    return record


def _checked(path, keys, mean, cov):
    """Return float64 statistics, or refuse what is no Gaussian."""
    mean, cov = (np.squeeze(np.asarray(x)) for x in (mean, cov))
    if mean.dtype.kind != "f" or mean.ndim != 1 or cov.shape != (len(mean),) * 2:
        raise errors.Refusal(
            f"{path}: {keys[0]} {mean.dtype}{list(mean.shape)} and {keys[1]} "
            f"{list(cov.shape)} are no mean [D] and covariance [D, D]"
        )
    mean, cov = mean.astype(np.float64), cov.astype(np.float64)
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise errors.Refusal(
            f"{path} holds NaN or infinity: fetch it again, or measure its images"
        )
    if np.abs(cov - cov.T).max() > 1e-5 * np.abs(cov).max():
        raise errors.Refusal(f"{path}: {keys[1]} is not symmetric: fetch it again")
    return mean, cov


def _open(path):
    path = home.expanded(path)
    if not path.is_file():
        raise errors.Refusal(f"reference {str(path)!r} does not exist: give an .npz")
    if not zipfile.is_zipfile(path):
        raise errors.Refusal(
            f"{path} is no .npz, or is cut short after {path.stat().st_size:,} bytes: "
            "fetch it again"
        )
    return np.load(path, allow_pickle=False)


def _read(path, archive, key):
    try:
        return archive[key]
    except (ValueError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise errors.Refusal(
            f"{path}: {key} cannot be read ({error}): fetch the file again"
        ) from error
