import contextlib
import functools
import http.server
import socket
import threading
import time

import pytest

from ddpm_jax.runtime.cluster import gce, preemption

ROOT = "/computeMetadata/v1/"


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers like the metadata server: to those who send its header only."""

    def do_GET(self):
        entries = self.server.entries
        known = self.path.startswith(ROOT) and self.path.removeprefix(ROOT) in entries
        own = self.headers["Metadata-Flavor"] == "Google"
        self.send_response(403 if not own else 200 if known else 404)
        self.end_headers()
        if own and known:
            self.wfile.write(entries[self.path.removeprefix(ROOT)].encode() + b"\n")
            self.server.asked.add(self.path.removeprefix(ROOT))

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def metadata_server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = set()
    server.entries = {gce.PREEMPTED: "FALSE", gce.MAINTENANCE: "NONE"}
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server():
    with metadata_server() as server:
        yield server


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_asked(server):
    """Wait until every entry has been read after now."""
    server.asked.clear()
    wait_for(lambda: server.asked == set(server.entries))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("instance/preempted", "TRUE"),
        ("instance/maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE"),
    ],
)
def test_a_notice_is_told_once(server, entry, value):
    told = []
    with gce.Watcher(lambda: told.append(1), server=server.url, every=0.01):
        wait_until_asked(server)
        wait_until_asked(server)
        assert told == []
        server.entries[entry] = value
        wait_for(lambda: told)
        time.sleep(0.1)
    assert told == [1]


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("instance/maintenance-event", "MIGRATE_ON_HOST_MAINTENANCE"),
        ("instance/preempted", "FALSE"),
    ],
)
def test_what_ends_nothing_is_not_told(server, entry, value):
    told = []
    with gce.Watcher(lambda: told.append(1), server=server.url, every=0.01):
        server.entries[entry] = value
        for _ in range(3):
            wait_until_asked(server)
    assert told == []


def test_maintenance_announced_before_the_start_does_not_stop_it(server):
    server.entries[gce.MAINTENANCE] = gce.TERMINATES
    told = []
    with gce.Watcher(lambda: told.append(1), server=server.url, every=0.01):
        for _ in range(3):
            wait_until_asked(server)
        assert told == []
        server.entries[gce.PREEMPTED] = "TRUE"
        wait_for(lambda: told)


def test_no_server_is_told(capfd, monkeypatch):
    monkeypatch.setattr(gce, "MAX_FAILURES", 2)
    with metadata_server() as gone:
        pass
    with gce.Watcher(lambda: None, server=gone.url, every=0.01) as watcher:
        watcher._thread.join(10)
    err = capfd.readouterr().err
    assert f"{gone.url} cannot be asked for preemption" in err


def test_metadata(server):
    assert gce.metadata(gce.PREEMPTED, server=server.url) == "FALSE"
    assert gce.metadata("instance/none", server=server.url) is None


def test_a_server_that_does_not_answer_is_asked_again():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            server.accept()[0].close()
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n3\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert gce.metadata("number", server=url, attempts=2) == "3"
        thread.join()


def test_metadata_goes_through_no_proxy(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert gce.metadata(gce.PREEMPTED, server=server.url) == "FALSE"


def test_machines_of_google(tmp_path):
    product = tmp_path / "product_name"
    assert not gce.is_google(product)
    product.write_text("Standard PC (Q35 + ICH9, 2009)\n")
    assert not gce.is_google(product)
    product.write_text("Google Compute Engine\n")
    assert gce.is_google(product)


def test_a_notice_is_a_request_to_stop(server, monkeypatch, capfd):
    watcher = functools.partial(gce.Watcher, server=server.url, every=0.01)
    monkeypatch.setattr(gce, "Watcher", watcher)
    monkeypatch.setattr(gce, "is_google", lambda: True)
    with preemption.StopRequest() as stop:
        wait_until_asked(server)
        assert not stop.requested
        server.entries[gce.PREEMPTED] = "TRUE"
        wait_for(lambda: stop.requested)
        assert stop.agreed()
        assert stop.signal_name == "the cluster's notice of preemption"
    assert "notice of preemption: stopping after saving" in capfd.readouterr().err
    names = [thread.name for thread in threading.enumerate()]
    assert "cluster-notices" not in names
