"""What comes in at the door of the server, and what goes out: limits and headers.

Gradio answers more addresses than the page asks for, some of which run programs or
write files: only those of the page are let through. Requests are refused by the length
that they give, before anything of them is read.
"""

import pathlib
import re

from ddpm_jax.core import errors

MIB = 2**20
MOST_UPLOAD = 16 * MIB  # bytes of a picture
MOST_ASKED = MOST_UPLOAD + MIB  # of a request: a picture, and what stands around it
MOST_CLICK = 2 * MIB  # of one without a picture; a brush's mask of 1024x1024 fits
MOST_WAITING = 128 * MIB  # of what is coming or not read yet, of all windows
SECONDS_WAITING = 300  # that they wait before they are deleted
API = "/gradio_api"
UPLOAD = f"{API}/upload"  # where pictures are sent to
# The last one is for what no chain has to wait for; gradio refuses it the others.
CLICKED = tuple(f"{API}/{p}" for p in ("queue/join", "cancel", "reset", "run/predict"))
READ = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/(assets|static)/.+|"
    rf"{API}/(theme\.css|info/?|startup-events|app_id/?|upload_progress|queue/data|"
    r"heartbeat/[^/]+)"
)
HEADERS = {
    # Whatever the page would like: the browser asks this server alone.
    "Content-Security-Policy": (
        "default-src 'self' data: blob:; "
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
        "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Door:
    """An ASGI application before another one."""

    def __init__(self, app, folder: pathlib.Path):
        """Stand before an application.

        Args:
            app: ASGI application.
            folder: of what is sent to it.
        """
        self._app, self._folder = app, folder
        self._coming = 0  # bytes on their way

    async def __call__(self, scope, receive, send):
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(send)
        if not is_of_page(scope["method"], scope["path"]):
            await _refuse(receive, send, 404, "the page has nothing there")
            return
        try:
            length = self._checked(scope)
        except errors.Refusal as refusal:
            await _refuse(receive, send, 413, str(refusal))
            return
        self._coming += length
        try:
            await self._app(scope, receive, send)
        finally:
            self._coming -= length

    def _checked(self, scope) -> int:
        """Return the length of what is sent.

        Raises:
            Refusal: too long, of no length, or while too much waits already.
        """
        given = dict(scope["headers"])
        if b"transfer-encoding" in given:
            raise errors.Refusal("requests say how long they are: give Content-Length")
        text = given.get(b"content-length", b"0").decode("latin-1")
        length = int(text) if text.isdecimal() and len(text) < 20 else MOST_ASKED + 1
        is_upload = scope["path"] == UPLOAD
        if length > (MOST_ASKED if is_upload else MOST_CLICK):
            raise errors.Refusal(
                f"that is too large: send a picture of at most {MOST_UPLOAD // MIB} MiB"
                if is_upload
                else f"that is too large: a click sends at most {MOST_CLICK // MIB} MiB"
            )
        if length:
            waiting = self._coming + (size_of(self._folder) if is_upload else 0)
            if waiting + length > MOST_WAITING:
                raise errors.Refusal(
                    f"{waiting / MIB:.0f} MiB wait to be read, of at most "
                    f"{MOST_WAITING // MIB}: send it again in "
                    f"{SECONDS_WAITING // 60} minutes"
                )
        return length


def is_of_page(method: str, path: str) -> bool:
    """Return whether the page itself asks for that."""
    if method == "POST":
        return path == UPLOAD or path in CLICKED
    return method in ("GET", "HEAD") and READ.fullmatch(path) is not None


def size_of(folder: pathlib.Path) -> int:
    """Return the bytes of the files below a folder; others may delete some of them."""
    whole = 0
    for file in folder.rglob("*"):
        try:
            whole += file.stat().st_size if file.is_file() else 0
        except FileNotFoundError:
            continue
    return whole


def _with_headers(send):
    extra = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]

    async def answer(message):
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *extra]}
        await send(message)

    return answer


async def _refuse(receive, send, status: int, text: str) -> None:
    """Answer with a sentence, which browsers show once they have sent all."""
    left = MOST_ASKED
    while left > 0:
        message = await receive()
        left -= len(message.get("body", b""))
        if not message.get("more_body"):
            break
    kind = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": kind})
    await send({"type": "http.response.body", "body": text.encode()})
