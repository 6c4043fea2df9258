"""Directories of runs written by hand, and pages read back by Python's own parser."""

import html.parser
import json

import numpy as np

from ddpm_jax.runs import directory
from ddpm_jax.runtime import image_grid

VOID = {"meta", "br", "img", "input"}
DATA = {
    "image_shape": [8, 8, 3],
    "levels": 256,
    "num_examples": 1200,
    "num_classes": 2,
    "class_names": ["cat", "dog"],
    "fingerprint": "0123abcd",
}
CONFIG = {
    "seed": 0,
    "data": {"name": "folder", "flip": False},
    "train": {"steps": 1000, "log_every": 100, "ema_decay": [0.999], "clip_norm": 0.0},
    "diffusion": {"prediction": "noise", "weighting": "none"},
}


def make(path, *, records=(), config=CONFIG, data=DATA, lines="", **more):
    """Write config.json and metrics.jsonl; return the run."""
    path.mkdir(parents=True, exist_ok=True)
    stored = {"config": config, "data": data, "versions": {"jax": "0.10.2"}, **more}
    (path / "config.json").write_text(json.dumps(stored))
    run_dir = directory.RunDir(path)
    for record in records:
        run_dir.append_metrics(record)
    if lines:
        with open(run_dir.metrics, "a") as file:
            file.write(lines)
    return run_dir


def record(step, **changes):
    """One record as training writes it."""
    quarters = {f"loss_q{q}": 0.4 / (1 + q) / step for q in range(4)}
    return {
        "step": step,
        "loss": 10.0 / step,
        "mse": 9.0 / step,
        "vb": 1.0 / step,
        "grad_norm": 0.5,
        "learning_rate": 1e-4,
        **quarters,
        "images_per_second": 321.0,
        "data_wait": 0.01,
        "eta_seconds": 60.0,
        "ema_initial_share/0.999": 0.999**step,
        **changes,
    }


def records(count=20, **changes):
    return [record(100 * (index + 1), **changes) for index in range(count)]


def validation(step, loss):
    quarters = {f"validation_loss_q{q}": loss * (1.5 - q / 3) for q in range(4)}
    return {
        "step": step,
        "validation_loss": loss,
        **quarters,
        "validation_mse_by_t": [loss, loss / 2],
        "t": [25.0, 75.0],
    }


def channels(step, sample, data, deviation):
    return {
        "step": step,
        "sample_channel_mean": sample,
        "sample_channel_std": deviation,
        "data_channel_mean": data,
        "data_channel_std": deviation,
    }


def card(value=2.5, steps=6, **changes):
    """A card as --mode=evaluate writes it."""
    terms = [1.0 / (1 + t) for t in range(steps)]
    return {
        "metric": "bits_per_dim",
        "value": value,
        "unit": "bits/dim",
        "standard_error": 0.0123,
        "prior": 0.001,
        "decoder": 0.25,
        "by_t": {
            "timestep": list(range(steps)),
            "bits_per_dim": terms,
            "x_0_mse": terms,
            "noise_mse": terms,
        },
        "protocol": {
            "checkpoint": 700,
            "weights": "ema",
            "num_images": 64,
            "clip": True,
        },
        **changes,
    }


def write_pair(run_dir, step, raw, ema):
    """Write a grid of raw | EMA samples, uint8 [N, H, W, C], as training does."""
    grids = [image_grid.grid(images, columns=8) for images in (raw, ema)]
    height, _, channels_shown = grids[0].shape
    gap = np.full((height, 16, channels_shown), 255, np.uint8)
    path = run_dir.samples / f"step_{step}.png"
    image_grid.write_png(path, np.concatenate([grids[0], gap, grids[1]], axis=1))
    return path


class Page(html.parser.HTMLParser):
    """A page: elements with their attributes, all text, tables; checks the nesting.

    Attributes:
        elements: [(tag, attributes)].
        text: everything that is read, a blank between elements.
        rows: the rows of all tables, each a list of cells (text, exact values).
    """

    def __init__(self, source: str):
        super().__init__()
        self.elements, self.rows, self._open, self._texts = [], [], [], []
        self.feed(source)
        self.close()
        assert not self._open, f"never closed: {self._open}"
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(("", []))
        if tag == "data":
            exact = float(dict(attrs)["value"])
            if "td" in self._open and self.rows[-1]:
                self.rows[-1][-1][1].append(exact)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in ("script", "style"):
            return
        self._texts.append(data)
        if "tr" in self._open and self.rows[-1]:
            text, exact = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data, exact)

    def all(self, tag):
        """Return the attributes of every such element."""
        return [attributes for name, attributes in self.elements if name == tag]

    def row(self, name):
        """Return the cells behind the one that holds just `name`."""
        return next(row[1:] for row in self.rows if row and row[0][0] == name)
