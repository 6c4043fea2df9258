"""From a published file of weights to a run: recognise, map, certify, save."""

import dataclasses
import time

import jax
import numpy as np

from ddpm_jax.builders import captions, kinds
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders import training as build_training
from ddpm_jax.config import reading
from ddpm_jax.convert import certificate, formats, mapping, recognise
from ddpm_jax.convert import open as open_lib
from ddpm_jax.core import errors
from ddpm_jax.models import functional
from ddpm_jax.runs import checkpoints, commands, directory
from ddpm_jax.runtime import compilation, versions
from ddpm_jax.runtime import sharding as sharding_lib
from ddpm_jax.runtime.console import say
from ddpm_jax.text import gpt2, pairs
from ddpm_jax.training import progress
from ddpm_jax.training import state as state_lib


def run(source, workdir, config, given: frozenset[str]) -> None:
    """Import the weights of `source` as a run in `workdir`.

    Args:
        source: files or a folder, see `convert.open.open_sources`.
        workdir: where the run is to be; there must be none yet.
        config: holds the values of the fields `given`; the file decides the others.
        given: names of the fields that the user decided.

    Raises:
        Refusal: the file is not understood, something about it must be given, the run
            could not be sampled from, or the converted network does not agree with a
            PyTorch forward pass of the file.
    """
    started = time.perf_counter()
    check_free(workdir)
    opened = open_lib.open_sources(source)
    say(f"{opened.path}: {opened.describe()}")
    values = dict(reading.leaves(config.to_dict()))
    decided = {name: values[name] for name in sorted(given)}
    recognised = recognise.recognise(opened, decided)
    for line in recognised.sentences():
        say(line)
    if "data.name" not in given:
        config.data.name = "folder"  # weights come without data; any may score them
    config = filled(config, recognised.fields)
    facts = facts_of(opened, recognised.fields)
    check_usable(config, facts)
    if config.model.kind != "clip" and config.model.text_layers and not facts.text:
        say(
            f"unknown vocabulary of {config.model.text_vocabulary:,} tokens: the run "
            "takes tokens, from Python, and no prompts"
        )
    network = build_network.network(config, facts)
    mesh = build_training.mesh(config)

    leaves = functional.by_path(network.shapes)
    shapes = {path: leaf.shape for path, leaf in leaves.items()}
    entries = formats.FORMATS[opened.format].entries(shapes, recognised.fields)
    mapping.check(entries, shapes, opened.shapes, recognised.fields)
    params = load(network, entries, opened, mesh)
    say(f"{functional.num_parameters(network.shapes):,} parameters mapped")

    compilation.enable_cache()
    small = certificate.small_fields(recognised.fields)
    small_network = build_network.network(
        filled(config, small), facts_of(opened, small)
    )
    parity = certificate.certify(opened, small, small_network, params)
    say(parity.sentence())
    if not parity.acceptable:
        raise errors.Refusal(
            f"{opened.path} was not converted: {parity.sentence()}; what shapes cannot "
            "tell is wrong in the --config fields above, or this is a defect of the "
            "importer"
        )
    jax.clear_caches()  # the certificate's program holds a copy of the weights
    save(workdir, config, facts, params, import_record(opened, recognised, parity))
    say(f"converted in {progress.duration(time.perf_counter() - started)}")
    if use := use_of(config, facts, workdir):
        say(use)


def use_of(config, facts, workdir) -> str:
    """Return what the run is for and the command, "" where no mode uses it yet."""
    kind = config.model.kind
    if kind == "clip":
        return (
            f"guide samples of texts with it: {commands.guide('', workdir)} "
            f"{commands.PROMPT}"
        )
    if kind != "classifier" and config.model.text_layers and facts.text is None:
        return ""
    if kind == "upsampler" and config.model.inpainting:
        return ""
    if kind in ("classifier", "upsampler") or build_network.makes_images_alone(config):
        sentence = kinds.of(config).use(config, workdir)
        return f"{sentence} {commands.PROMPT}" if config.model.text_layers else sentence
    return commands.complete(workdir)


def check_free(workdir) -> None:
    """Refuse a directory that holds a run already, before the file is read."""
    if directory.RunDir.at(workdir).config.exists():
        raise errors.Refusal(
            f"{workdir} holds a run already: choose another --workdir, or move it away"
        )


def check_usable(config, facts) -> None:
    """Refuse a process or sampler that no later command could build.

    Raises:
        Refusal: the one that sampling from the run would end with.
    """
    build_process.schedule(config)
    if facts.text is not None:
        # An empty text of any tokenizer: the vocabulary's files may come later.
        record = {"kind": "bytes", "context": 1}
        facts = dataclasses.replace(facts, text=build_data.TextFacts(record, ("",)))
    elif config.model.text_layers:
        return
    if build_network.makes_images_alone(config):  # a classifier guides another
        build_sampling.recipe(config, facts)


def filled(config, fields):
    """Return the config with what was recognised; the rest keeps its values."""
    values = dict(reading.leaves(config.to_dict()))
    values.update({name: value for name, value in fields.items() if name in values})
    return reading.from_leaves(values.items(), where="the converted file")


def facts_of(opened, fields) -> build_data.DataInfo:
    """Return what the weights say of the data they were trained on."""
    size = tuple(fields["data.image_size"])
    num_classes = fields.get("facts.num_classes")
    return build_data.DataInfo(
        shape=(*(size * 2 if len(size) == 1 else size), fields["data.channels"]),
        levels=256,
        num_examples=0,
        num_classes=num_classes,
        class_names=tuple(str(label) for label in range(num_classes or 0)),
        fingerprint=f"weights of sha256 {opened.sha256}",
        text=text_of(fields),
    )


def text_of(fields) -> build_data.TextFacts | None:
    """Return the tokenizer of a network, None where it reads no text or it is unknown.

    The files of its vocabulary need not be here.
    """
    record = fields.get("facts.tokenizer")
    if record is None and fields.get("data.tokenizer") == gpt2.GPT2.kind:
        context = fields.get("model.text_context") or gpt2.CONTEXT
        record = gpt2.GPT2(pairs.NOTHING, context).to_json()
    is_read = fields["model.kind"] != "clip" and fields.get("model.text_layers")
    return build_data.TextFacts(record, ()) if is_read and record else None


def load(network, entries, opened, mesh):
    """Return the parameters, read one at a time into their shardings.

    Raises:
        Refusal: a tensor holds numbers that are not finite.
    """
    by_path = {entry.path: entry for entry in entries}
    shardings = sharding_lib.state_shardings(mesh, network.shapes)

    def take(path, shape, sharding):
        entry = by_path[functional.path_name(path)]
        array = mapping.to_ours(entry, opened.tensors)
        if not np.isfinite(array).all():
            raise errors.Refusal(
                f"{opened.path}: {' or '.join(entry.keys)} holds numbers that are not "
                "finite: the file is damaged or its training had failed; fetch another"
            )
        if array.shape != shape.shape:
            raise ValueError(f"{path} became {array.shape}, not {shape.shape}")
        return jax.device_put(array, sharding)

    return jax.tree_util.tree_map_with_path(take, network.shapes, shardings)


def import_record(opened, recognised, parity) -> dict:
    """Return what is noted in config.json of where the weights come from."""
    return {
        "source": str(opened.path),
        "sha256": opened.sha256,
        "bytes": opened.bytes,
        "family": opened.format,
        "published": recognised.published,
        "weights": f"weights imported from {opened.path.name}",
        "notes": list(opened.notes),
        "origin_of_fields": recognised.origin,
        "assumed": list(recognised.assumed),
        "certificate": parity.to_dict(),
    }


def save(workdir, config, facts, params, imported) -> None:
    """Write the run: the weights first, and config.json, which makes it one, last."""
    run_dir = directory.RunDir.create(workdir)
    with run_dir.lock(), checkpoints.Checkpoints(run_dir.checkpoints) as saved:
        saved.save(0, state_lib.of_weights(params))
        saved.wait()
        run_dir.write_json(
            run_dir.config,
            {
                "config": config.to_dict(),
                "data": captions.write(run_dir, facts),
                "versions": versions.versions(),
                "imported": imported,
            },
        )
    say(f"run directory {run_dir.path}")
