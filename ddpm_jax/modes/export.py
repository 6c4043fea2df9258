"""The weights of a run as a file that other programs read."""

import pathlib

import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import chains, trained_run
from ddpm_jax.config import reading
from ddpm_jax.convert.export import writing
from ddpm_jax.convert.formats import EXPORTS
from ddpm_jax.core import errors
from ddpm_jax.models import functional
from ddpm_jax.report import run_card
from ddpm_jax.runtime import versions
from ddpm_jax.runtime.console import say


def run(config, workdir, format_name: str, output: str) -> None:
    """Write the weights of the run in `workdir` and read them back to compare.

    Args:
        config: the run's config; sampling.weights decides between EMA and raw.
        workdir: the run.
        format_name: a key of `convert.formats.EXPORTS`.
        output: file or folder to write; nothing may be there yet.

    Raises:
        Refusal: an unknown format, a chain of 2015, a network it cannot express, or an
            output that is there already.
    """
    errors.choose("format", EXPORTS, format_name)
    if config.model.kind in chains.KINDS:
        raise errors.Refusal(
            f"model.kind={config.model.kind!r}: no other program has such a network to "
            "export to; its arrays are those of ddpm_jax.load(RUN).params() in Python"
        )
    if pathlib.Path(output).exists():
        raise errors.Refusal(f"{output} is there already: choose another --output")
    trained = trained_run.open_run(workdir, config)
    weights = trained.chosen_weights("sampling.weights")
    leaves = functional.by_path(weights.params)
    by_path = {path: np.asarray(leaf) for path, leaf in leaves.items()}
    fields = fields_of(trained)
    exported = writing.write(
        format_name,
        output,
        params=by_path,
        fields=fields,
        image_shape=trained.facts.shape,
        provenance={
            "run": str(trained.run_dir.path),
            "step": trained.step,
            "weights": weights.kind,
            "versions": versions.versions(),
        },
    )
    for line in exported.sentences:
        say(line)
    say(writing.reload_and_compare(format_name, output, by_path, fields))
    for path in (*exported.paths, *_cards(trained, format_name, output)):
        say(f"wrote {path}")


def _cards(trained, format_name, output):
    """Write the run's card, and the model card of a folder that others read."""
    base = config_lib.base().to_dict()
    # A run that is only read is exported too.
    written = [run_card.write_or_say(trained.run_dir, base=base)]
    if format_name == "diffusers":
        folder = pathlib.Path(output)
        written.append(run_card.for_diffusers(trained.run_dir, folder, base=base))
    return [path for path in written if path]


def fields_of(trained) -> dict:
    """Return the config as dotted fields, with the facts that networks need."""
    fields = dict(reading.leaves(trained.config.to_dict()))
    height, width, channels = trained.facts.shape
    fields["data.image_size"] = (height, width)
    fields["data.channels"] = channels
    fields["facts.num_classes"] = trained.facts.num_classes
    if trained.facts.text is not None:
        fields["facts.tokenizer"] = trained.facts.text.tokenizer
    return fields
