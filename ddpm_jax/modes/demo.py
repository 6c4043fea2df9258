"""A page in the browser, to play with a run."""

import contextlib
import logging

from ddpm_jax import config as config_lib
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import trained_run
from ddpm_jax.config import reading
from ddpm_jax.core import errors
from ddpm_jax.demo import page, server, style, tabs, worker
from ddpm_jax.demo.player import Player, typed
from ddpm_jax.runtime import devices

# What the tabs decide, a click at a time.
OF_TABS = (
    "sampling.labels",
    "sampling.per_class",
    "sampling.guidance_w",
    *(f"editing.{name}" for name in config_lib.base().editing),
)


def run(config, workdir, port, host) -> None:
    """Serve a page with the run in `workdir` until Ctrl-C.

    Args:
        config: of the run; what it says of sampling is where the page begins.
        workdir: the run; nothing is written into it.
        port: to listen at; "" for 7860.
        host: address to listen at; "" for this machine alone.

    Raises:
        Refusal: no run, fields that the page decides, gradio is not installed, or the
            port is in use.
    """
    server.check_installed()
    number, host = server.port_of(port), host or "127.0.0.1"
    devices.check()
    saved = trained_run.read(workdir)
    if config.model.kind in ("classifier", "clip"):
        build_network.check_kind(config, "--mode=demo of", workdir)
    build_network.check_no_upsampler(config, "--mode=demo of")
    leave_to_tabs(config, saved.config)
    bound = server.listening(host, number)
    try:
        with server.scratch():
            player = Player(config, saved, workdir)
            with contextlib.closing(player):
                # Compiled meanwhile: the first click waits for what is left of it.
                warming = player.warm(tabs.first_jobs(player))
                warming.add_done_callback(tell_failure)
                import gradio

                blocks = page.build(gradio, player, tabs.of(player))
                app = server.application(
                    gradio, blocks, theme=style.theme(gradio), css=style.CSS
                )
                server.serve(
                    app, bound, f"open {server.address_of(host, number)} (Ctrl-C ends)"
                )
    finally:
        bound.close()


def tell_failure(warming) -> None:
    """Log why the first programs could not be compiled; requests tell it too.

    Args:
        warming: from `Player.warm`, ended.
    """
    failed = None if warming.cancelled() else warming.exception()
    if failed is not None and not isinstance(failed, worker.Stopped):
        logging.getLogger(__name__).error("nothing was compiled", exc_info=failed)


def leave_to_tabs(config, saved) -> None:
    """Give the fields that the tabs decide their usual values, whatever the run has.

    Args:
        config: of the run with the changes of the command line; it is changed.
        saved: of the run alone.

    Raises:
        Refusal: the command line gives one of them.
    """
    if saved.sampling.guidance_w and config.sampling.guidance_scale == 1:
        config.sampling.guidance_scale = 1.0 + saved.sampling.guidance_w  # the same
    given, own = (dict(reading.leaves(c.to_dict())) for c in (config, saved))
    for name, usual in reading.leaves(config_lib.base().to_dict()):
        if name not in OF_TABS:
            continue
        if given[name] not in (own.get(name, usual), usual):
            raise errors.Refusal(
                f"--config.{name}={typed(given[name])} with --mode=demo: the page "
                "itself decides that, so leave it out, or give it to --mode=sample "
                "or the mode that edits"
            )
        section, _, field = name.rpartition(".")
        config[section][field] = usual
