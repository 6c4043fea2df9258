"""The door of the page: how much may be sent, and what every answer carries."""

import asyncio

import pytest

from ddpm_jax.demo import door

MIB = 2**20


def asked(standing, path="/gradio_api/upload", length=None, headers=(), method="POST"):
    """Return (status, content, headers) of the answer to a request."""
    headers = list(headers)
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    answers = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        answers.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(standing(scope, receive, send))
    start, body = answers
    return start["status"], body["body"].decode(), dict(start["headers"])


@pytest.fixture
def seen():
    return []


@pytest.fixture
def standing(tmp_path, seen):
    async def page(scope, receive, send):
        seen.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the page"})

    return door.Door(page, tmp_path)


def test_every_answer_keeps_the_browser_at_this_server(standing):
    for length in (0, 10**9):  # of the page, and of a refusal
        _, _, headers = asked(standing, "/", length, method="GET")
        assert b"default-src 'self'" in headers[b"content-security-policy"]
        assert headers[b"referrer-policy"] == b"no-referrer"


@pytest.mark.parametrize(
    ("path", "most", "words"),
    [
        ("/gradio_api/upload", 16, "send a picture of at most 16 MiB"),
        ("/gradio_api/queue/join", 2, "a click sends at most 2 MiB"),
    ],
)
def test_what_is_too_large_is_refused_unread(standing, seen, path, most, words):
    assert asked(standing, path, most * MIB)[0] == 200
    for length in ((most + 2) * MIB, 10**30, "-1", "seven", "1" * 5000):
        status, told, _ = asked(standing, path, length)
        assert (status, told) == (413, f"that is too large: {words}")
    assert seen == [path]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/gradio_api/process_recording"),  # runs ffmpeg on any file
        ("GET", "/gradio_api/deep_link"),  # writes files
        ("POST", "/gradio_api/run/other"),
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("POST", "/gradio_api/component_server"),
        ("GET", "/gradio_api/proxy=https://example.org"),
        ("GET", "/gradio_api/heartbeat/a/../../deep_link"),
        ("POST", "/gradio_api/upload/"),
        ("GET", "/gradio_api/upload"),
        ("POST", "/"),
        ("PUT", "/config"),
        ("GET", "/gradio_api/queue/data\n"),
    ],
)
def test_what_the_page_does_not_ask_for_is_not_there(standing, seen, method, path):
    assert asked(standing, path, 0, method=method)[0] == 404
    assert seen == []


PAGE = [
    ("GET", "/"),
    ("GET", "/config"),
    ("GET", "/theme.css"),
    ("GET", "/assets/index-DphvyggB.js"),
    ("GET", "/static/fonts/Inter/Inter-Regular.woff2"),
    ("GET", "/gradio_api/info"),
    ("GET", "/gradio_api/startup-events"),
    ("GET", "/gradio_api/heartbeat/x7f3k"),
    ("GET", "/gradio_api/queue/data"),
    ("GET", "/gradio_api/upload_progress"),
    ("POST", "/gradio_api/queue/join"),
    ("POST", "/gradio_api/upload"),
    ("POST", "/gradio_api/cancel"),
    ("POST", "/gradio_api/run/predict"),  # of Stop, and of sliders
    ("POST", "/gradio_api/reset"),
]


@pytest.mark.parametrize(("method", "path"), PAGE)
def test_what_the_page_asks_for_is_let_through(standing, seen, method, path):
    assert asked(standing, path, 0, method=method)[0] == 200
    assert seen == [path]


def test_requests_of_no_length_are_refused(standing, seen):
    status, told, _ = asked(standing, headers=[(b"transfer-encoding", b"chunked")])
    assert (status, told) == (
        413,
        "requests say how long they are: give Content-Length",
    )
    assert seen == []


def test_pictures_that_wait_are_few(standing, seen, tmp_path):
    (tmp_path / "one").mkdir()
    with (tmp_path / "one" / "picture.png").open("wb") as file:
        file.truncate(120 * MIB)
    assert asked(standing, length=7 * MIB)[0] == 200
    status, told, _ = asked(standing, length=9 * MIB)
    assert status == 413
    for part in ("120 MiB", "128", "again in 5 minutes"):
        assert part in told
    # Other requests are answered meanwhile.
    assert asked(standing, "/gradio_api/queue/join", 2 * MIB)[0] == 200
    (tmp_path / "one" / "picture.png").unlink()
    assert asked(standing, length=9 * MIB)[0] == 200


def test_pictures_on_their_way_count(tmp_path):
    answers, release = [], asyncio.Event()

    async def page(scope, receive, send):
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        answers.append(message.get("status"))

    async def many():
        standing = door.Door(page, tmp_path)
        length = [(b"content-length", str(16 * MIB).encode())]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/gradio_api/upload",
            "headers": length,
        }
        coming = [asyncio.create_task(standing(scope, receive, send)) for _ in range(9)]
        await asyncio.sleep(0.05)
        assert answers == [413, None]  # the ninth of 16 MiB each, while eight come
        release.set()
        await asyncio.gather(*coming)
        assert answers == [413, None, *[200] * 8]
        await standing(scope, receive, send)
        assert answers[-1] == 200

    asyncio.run(many())
