"""Serving the page: one address, nothing of the machine but the page, a clean end."""

import contextlib
import errno
import importlib.util
import logging
import os
import pathlib
import shutil
import signal
import socket
import tempfile

from ddpm_jax.core import errors
from ddpm_jax.demo import door, uploads
from ddpm_jax.runtime.console import say

LOCAL = ("127.0.0.1", "localhost", "::1")
ALL_NETWORKS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
INSTALL = "pip install 'ddpm_jax[demo]'"
MOST_CONNECTIONS = 256  # at a time; a window has a few
MOST_WINDOWS = 64  # whose pictures are remembered; the oldest one is forgotten


def check_installed() -> None:
    """Refuse where gradio is missing, with the line that installs it."""
    # Not imported yet: gradio reads at import what `scratch` sets.
    if importlib.util.find_spec("gradio") is None:
        raise errors.Refusal(
            f"--mode=demo needs gradio, which is not installed: {INSTALL}"
        )


def port_of(text: str) -> int:
    """Return the port that --port gives, 7860 without it.

    Raises:
        Refusal: no number of 1 … 65535.
    """
    if not text:
        return 7860
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise errors.Refusal(f"--port={text}: give a number of 1 … 65535")
    return int(text)


def listening(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to an address.

    Raises:
        Refusal: the port is in use or not allowed, or the address is not of this
            machine.
    """
    bound = None
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen()
    except (OSError, UnicodeError) as error:
        if bound is not None:
            bound.close()
        raise _not_bound(host, port, error) from error
    if host not in LOCAL:
        say(
            f"warning: --host={host} lets everyone who reaches this machine use the "
            "run; there is no password. --host=127.0.0.1 keeps it here"
        )
    return bound


def _not_bound(host, port, error):
    """Return the refusal of an address that cannot be listened at."""
    number = getattr(error, "errno", None)
    if isinstance(error, socket.gaierror | UnicodeError) or (
        number == errno.EADDRNOTAVAIL
    ):
        return errors.Refusal(
            f"--host={host} is no address of this machine: give 127.0.0.1, or 0.0.0.0 "
            "for all of its networks"
        )
    if number == errno.EACCES:
        return errors.Refusal(
            f"--port={port}: this user may not listen there, as at most ports below "
            "1024; give a --port of 1024 … 65535, such as --port=7860"
        )
    return errors.Refusal(
        f"--host={host} --port={port}: {error.strerror}; give another --port, such "
        f"as --port={min(65535, port + 1)}"
    )


def address_of(host: str, port: int) -> str:
    """Return the address that a browser of this machine opens."""
    host = ALL_NETWORKS.get(host, host)  # no browser opens these
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{port}/"


@contextlib.contextmanager
def scratch():
    """Give gradio a folder of its own for what is sent to it, which goes at the end."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ddpm_jax_demo_"))
    variables = {
        uploads.FOLDER: str(folder),
        "GRADIO_ANALYTICS_ENABLED": "False",
        # Gradio counts requests, and sorts its counts at each of them.
        "GRADIO_ANALYTICS_MAX_EVENTS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def application(gr, page, *, theme, css: str):
    """Return the page as an ASGI application.

    Args:
        gr: the module gradio.
        page: gradio's blocks.
        theme, css: of the page.
    """
    import fastapi

    page.state_session_capacity = MOST_WINDOWS
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        page,
        path="",
        theme=theme,
        css=css,
        footer_links=[],
        show_error=False,
        max_file_size=door.MOST_UPLOAD,
        allowed_paths=[],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        run_history=False,
    )
    _take_only_what_was_sent(page)
    return door.Door(app, pathlib.Path(os.environ[uploads.FOLDER]))


def _take_only_what_was_sent(page) -> None:
    """Let every input name files that were sent to the page, and no other.

    Gradio looks at the names that requests give only in pages that it launched itself;
    a mounted page would copy any file of the machine, and fetch any address.
    """
    page.has_launched = page.is_running = True

    def checked(move):
        def answer(path):
            if path is not None:
                uploads.check_sent(path)
            return move(path)

        return answer

    names = ("move_resource_to_block_cache", "async_move_resource_to_block_cache")
    for block in page.blocks.values():
        for name in names:
            setattr(block, name, checked(getattr(block, name)))


def serve(app, bound: socket.socket, message: str) -> None:
    """Answer until Ctrl-C or SIGTERM.

    Args:
        app: from `application`.
        bound: from `listening`.
        message: what is said once it answers.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets=sockets)
            say(message)

        async def shutdown(self, sockets=None):
            # What windows wait for is cut off: no error, and no traceback each.
            log.setLevel(logging.CRITICAL + 1)
            await super().shutdown(sockets=sockets)

    log = logging.getLogger("uvicorn.error")
    settings = uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=2,
        limit_concurrency=MOST_CONNECTIONS,
    )
    server = Server(settings)
    # uvicorn raises the signal again once all is closed: it has been heard.
    before = {
        number: signal.signal(number, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        server.run(sockets=[bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        log.setLevel(logging.NOTSET)
        bound.close()
    say("stopped")
