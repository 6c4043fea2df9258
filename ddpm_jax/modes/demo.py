"""A page in the browser, to play with a run."""

from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import trained_run
from ddpm_jax.demo import page, server, style, tabs
from ddpm_jax.demo.player import Player
from ddpm_jax.runtime import devices


def run(config, workdir, port, host) -> None:
    """Serve a page with the run in `workdir` until Ctrl-C.

    Args:
        config: of the run; what it says of sampling is where the page begins.
        workdir: the run; nothing is written into it.
        port: to listen at; "" for 7860.
        host: address to listen at; "" for this machine alone.

    Raises:
        Refusal: no run, gradio is not installed, or the port is in use.
    """
    server.check_installed()
    number, host = server.port_of(port), host or "127.0.0.1"
    devices.check()
    saved = trained_run.read(workdir)
    if config.model.kind == "classifier":
        build_network.check_kind(config, "--mode=demo of", workdir)
    build_network.check_no_upsampler(config, "--mode=demo of")
    bound = server.listening(host, number)
    try:
        with server.scratch():
            import gradio

            player = Player(config, saved, workdir)
            blocks = page.build(gradio, player, tabs.of(player))
            app = server.application(
                gradio, blocks, theme=style.theme(gradio), css=style.CSS
            )
            player.warm(tabs.first_jobs(player))
            server.serve(app, bound, f"open http://{host}:{number}/ (Ctrl-C ends)")
    finally:
        bound.close()
