"""A look at the data before the first step: what lies there, what a network sees."""

import numpy as np

from ddpm_jax.builders import captions as build_captions
from ddpm_jax.builders import captions_summary
from ddpm_jax.builders import data as build_data
from ddpm_jax.core import errors
from ddpm_jax.data import files, images, inspection, labels
from ddpm_jax.report import data_page
from ddpm_jax.runs import directory
from ddpm_jax.runtime import files as files_lib
from ddpm_jax.runtime.console import say

WITH_FILES = ("folder", "zip")
IMBALANCE = 10  # commonest class over rarest one that is worth a remark


def run(config, workdir) -> None:
    """Write data.html into `workdir` and say what matters in the terminal.

    Raises:
        Refusal: the data cannot be trained on; the page, which says so too, is there.
    """
    found = None
    if config.data.name in WITH_FILES:
        found = inspection.inspect_files(captions_summary.listing(config), say)
    refusal, dataset, seen = None, None, None
    try:
        dataset = build_data.dataset(config, "train")
        build_data.check_pictures(
            build_data.DataInfo.of(dataset), "--mode=data", "look at it from Python"
        )
        test = build_data.dataset(config, "test")
        build_captions.check(config, dataset)
        seen = inspection.inspect_dataset(dataset)
    except errors.Refusal as error:
        refusal = error
    captions = captions_summary.summarise(config, dataset if seen else None, workdir)
    remarks = [
        *file_remarks(found),
        *seen_remarks(dataset, seen),
        *captions.remarks,
    ]
    for remark in remarks:
        say(f"warning: {remark}")
    page = data_page.page(
        f"Data: {config.data.path or config.data.name}",
        refusal=refusal and str(refusal),
        dataset=seen and described(config, dataset, test, seen),
        examples=seen and images.to_uint8(seen.examples),
        mean_image=seen and images.to_uint8(seen.mean_image),
        files=found and described_files(found),
        captions=captions.described,
        remarks=remarks,
    )
    run_dir = directory.RunDir.create(workdir)
    files_lib.write_bytes(run_dir.data_page, page)
    say(f"page: {run_dir.data_page}")
    if refusal:
        raise refusal
    height, width, channels = dataset.shape
    say(
        f"{len(dataset):,} training and {len(test):,} test images {height}x{width}x"
        f"{channels}, {dataset.num_classes or 'no'} classes: training can start"
    )


def described(config, dataset, test, seen) -> dict:
    """Return what is trained on, for the page."""
    height, width, channels = dataset.shape
    if config.data.name in WITH_FILES and dataset.num_classes:
        # Every file counts, not only those whose pixels were decoded.
        listed = files.open_images(config.data.path)
        ids = labels.assign(listed, config.data.labels).ids
        counts = np.bincount(ids, minlength=dataset.num_classes).tolist()
    else:
        counts = seen.class_counts
    total = max(sum(counts), 1)
    by_channel = zip(seen.channel_mean, seen.channel_std, strict=True)
    return {
        "facts": [
            ("training images", f"{len(dataset):,}"),
            ("test images", f"{len(test):,}"),
            ("size", f"{height} × {width} pixels"),
            ("channels", str(channels)),
            ("grey values", f"{dataset.levels:,}"),
            ("range of values", f"{_signed(seen.minimum)} … {_signed(seen.maximum)}"),
            (
                "mean ± deviation by channel",
                ", ".join(f"{_signed(m)} ± {s:.3f}" for m, s in by_channel),
            ),
            ("classes", f"{dataset.num_classes:,}" if dataset.num_classes else "none"),
            ("crop", config.data.crop),
            ("flip", "left-right, half of the images" if config.data.flip else "none"),
        ],
        "classes": [
            (name, count, f"{100 * count / total:.1f} %")
            for name, count in zip(dataset.class_names, counts, strict=True)
        ],
    }


def _signed(value):
    return f"{value:.3f}".replace("-", "−")


def described_files(found: inspection.FilesFound) -> dict:
    """Return what lies on the disk, for the page."""
    listing = found.images
    sizes = [(f"{h} × {w}", count) for (h, w), count in found.sizes()]
    turned = sum(one.orientation != 1 for one in found.headers.found)
    with_alpha = sum(one.alpha for one in found.headers.found)
    return {
        "facts": [
            ("place", listing.root),
            ("images", f"{len(listing):,}"),
            ("bytes", f"{sum(entry.size for entry in listing.entries):,}"),
            ("decoded", f"{found.num_decoded:,}"),
            ("other files", files.describe_ignored(listing) or "none"),
            ("with transparency", f"{with_alpha:,}"),
            ("turned by EXIF", f"{turned:,}"),
        ],
        "tables": {
            "Formats": (["format", "files"], found.counts("format")),
            "Modes": (["mode", "files"], found.counts("mode")),
            "Bits": (
                ["bits", "files"],
                [(str(bits), n) for bits, n in found.counts("stored_bits")],
            ),
            "Height × width": (["size", "files"], sizes),
        },
        "lists": {
            "Unreadable files": [f"{name} {why}" for name, why in found.unreadable],
            "Duplicates": [" = ".join(names) for names in found.duplicates],
            "Images of one colour": list(found.constant),
        },
    }


def file_remarks(found: inspection.FilesFound | None) -> list[str]:
    """Return remarks about files."""
    if found is None:
        return []
    headers = found.headers.found
    counted = {
        "files that cannot be read": len(found.unreadable),
        "files that repeat others": sum(len(names) - 1 for names in found.duplicates),
        "images of a single colour": len(found.constant),
        "images turned upright as EXIF says": sum(o.orientation != 1 for o in headers),
        "images with transparency": sum(one.alpha for one in headers),
    }
    return [f"{what}: {count:,}" for what, count in counted.items() if count]


def seen_remarks(dataset, seen) -> list[str]:
    """Return remarks about what training would see."""
    if seen is None:
        return []
    remarks = []
    present = [count for count in seen.class_counts if count]
    if len(present) > 1 and max(present) > IMBALANCE * min(present):
        remarks.append(
            f"classes are uneven: {max(present)} images of the commonest against "
            f"{min(present)} of the rarest"
        )
    return [*remarks, *inspection.remarks(dataset, seen)]
