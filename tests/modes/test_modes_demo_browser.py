"""The page of --mode=demo in a browser, headless, and what it must not do.

With DDPM_JAX_DEMO_RUN=runs/digits another run is played with than the tiny one, and
with DDPM_JAX_SCREENSHOTS=docs the pictures of docs/demo.md are made anew.
"""

import concurrent.futures
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.demo import server

pytestmark = pytest.mark.slow
if importlib.util.find_spec("gradio") is None:  # which takes seconds to import
    pytest.skip("no gradio: pip install '.[demo]'", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if not CHROMIUM:
    pytest.skip("no chromium: apt-get install chromium", allow_module_level=True)

DESKTOP, PHONE = {"width": 1200, "height": 900}, {"width": 390, "height": 844}
TABS = (
    "Sample",
    "Inpaint",
    "Vary",
    "Interpolate",
    "Restore",
    "Animate",
    "How it works",
)
PATIENCE = float(os.environ.get("DDPM_JAX_PATIENCE", "120"))  # seconds


class Served:
    """A page that is served by a process of its own."""

    def __init__(self, run, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.scratch, self.log = folder / "scratch", folder / "log"
        self.scratch.mkdir()
        began = time.monotonic()
        command = [sys.executable, "-m", "ddpm_jax.main", "--mode=demo"]
        # One device, as a user's machine has.
        environment = {**os.environ, "TMPDIR": str(self.scratch), "XLA_FLAGS": ""}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, f"--workdir={run}", f"--port={self.port}"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        self.url = f"http://127.0.0.1:{self.port}"
        while "open http" not in self.log.read_text():
            is_late = time.monotonic() - began > PATIENCE
            if is_late or self.process.poll() is not None:
                self.process.kill()
                pytest.fail(f"no page:\n{self.log.read_text()}")
            time.sleep(0.1)
        self.seconds = time.monotonic() - began

    def get(self, path, data=None):
        """Return status and content of an address."""
        body = None if data is None else json.dumps(data).encode()
        request = urllib.request.Request(
            self.url + path, body, {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def functions(self):
        """Return what the page can ask for: (number, input kinds), of each event."""
        config = json.loads(self.get("/config")[1])
        kinds = {one["id"]: one["type"] for one in config["components"]}
        return [
            (one["id"], [kinds[i] for i in one["inputs"]], one["inputs"])
            for one in config["dependencies"]
            if one["backend_fn"]
        ], {one["id"]: one["props"] for one in config["components"]}

    def ask(self, number, values, session):
        """Return the last answer to an event, as the page would ask."""
        asked = {"fn_index": number, "data": values, "session_hash": session}
        status, told = self.get("/gradio_api/queue/join", asked)
        if status != 200:
            return {"success": False, "output": json.loads(told)}
        address = f"{self.url}/gradio_api/queue/data?session_hash={session}"
        with urllib.request.urlopen(address, timeout=PATIENCE) as stream:
            shown = ""
            for line in stream:
                if not line.startswith(b"data:"):
                    continue
                said = json.loads(line[5:])
                if said["msg"] == "process_generating":
                    shown += json.dumps(said["output"])
                if said["msg"] == "process_completed":
                    return {**said, "shown": shown}
        raise AssertionError("the stream ended without an answer")

    def memory(self):
        """Return the memory of the process, MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = [n for n in status.splitlines() if n.startswith("VmRSS")]
        return int(line.split()[1]) / 1024


@pytest.fixture(scope="module")
def played(request):
    """The directory of the run that is played with."""
    given = os.environ.get("DDPM_JAX_DEMO_RUN")
    return pathlib.Path(given or request.getfixturevalue("first_run")[0])


@pytest.fixture(scope="module")
def served(played, tmp_path_factory):
    found = Served(played, tmp_path_factory.mktemp("demo"))
    yield found
    found.process.send_signal(signal.SIGINT)
    assert found.process.wait(timeout=PATIENCE) == 0
    assert found.log.read_text().splitlines()[-1] == "stopped"
    assert list(found.scratch.glob("ddpm_jax_demo_*")) == []


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield found
        found.close()


@pytest.fixture
def opened(served, browser):
    """Return a function: size of the window → the page; faults are looked for."""
    faults, pages = [], []
    own = (f"{served.url}/", "data:", "blob:")

    def note(address):
        if not address.startswith(own):
            faults.append(address)

    def open_page(size=DESKTOP):
        page = browser.new_page(viewport=size)
        page.set_default_timeout(1000 * PATIENCE)
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on(
            "console",
            lambda said: faults.append(said.text) if said.type == "error" else None,
        )
        page.on("request", lambda asked: note(asked.url))
        page.goto(served.url)
        page.wait_for_selector("#sample-go")
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert faults == []


def on_tab(page, name):
    page.get_by_role("tab", name=name).click()


WATCH = """(kind) => {
  const place = document.getElementById(`${kind}-status`);
  const said = () => place.querySelector('.dj-status, .dj-error')?.textContent;
  const before = said();
  window.watcher?.disconnect();
  window.isNew = false;
  const note = () => { if (said() !== before) window.isNew = true; };
  const options = {childList: true, characterData: true, subtree: true};
  window.watcher = new MutationObserver(note);
  window.watcher.observe(place, options);
}"""


def begin(page, kind):
    """Begin what a tab makes: what was said of the last one is gone."""
    page.evaluate(WATCH, kind)
    page.click(f"#{kind}-go")
    page.wait_for_function("window.isNew")


def done(page, kind):
    """Wait for the results of a tab; return their addresses."""
    panel = page.locator(f"#{kind}-results")
    said = page.locator(f"#{kind}-status")
    ended = said.locator(".dj-error").or_(said.get_by_text("Done."))
    ended.first.wait_for()
    assert "Done." in said.inner_text(), said.inner_text()
    return [one.get_attribute("src") for one in panel.locator("img").all()]


def shoot(page, name):
    """Keep what the page looks like, for docs/demo.md."""
    folder = os.environ.get("DDPM_JAX_SCREENSHOTS")
    if not folder:
        return
    data = page.screenshot(full_page=True)
    with Image.open(io.BytesIO(data)) as image:
        few = image.convert("RGB").quantize(128)
        few.save(pathlib.Path(folder) / name, optimize=True)


def test_sampling_takes_seconds_and_shows_its_command(served, opened):
    page = opened()
    took = []
    for _ in range(2):
        began = time.monotonic()
        begin(page, "sample")
        images = done(page, "sample")
        took.append(time.monotonic() - began)
    print(f"page {served.seconds:.1f} s, first {took[0]:.1f} s, then {took[1]:.1f} s")
    assert len(images) == 4
    assert all(one.startswith("data:image/png;base64,") for one in images)
    command = page.locator("#sample-command textarea").input_value()
    assert command.startswith("python -m ddpm_jax.main --mode=sample --workdir=")
    shoot(page, "demo_sample.png")


def test_a_hole_is_brushed_and_filled(opened):
    page = opened()
    on_tab(page, "Inpaint")
    page.click("#inpaint-take")
    canvas = page.locator("#inpaint-canvas")
    canvas.wait_for()
    begin(page, "inpaint")
    page.get_by_text("nothing is brushed").wait_for()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    for share in (0.6, 0.72, 0.84, 0.96):
        page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + share * box["height"])
        page.mouse.down()
        page.mouse.move(
            box["x"] + 0.9 * box["width"], box["y"] + share * box["height"], steps=6
        )
        page.mouse.up()
    begin(page, "inpaint")
    images = done(page, "inpaint")
    assert len(images) == 5
    assert "--mask=mask.png" in page.locator("#inpaint-command textarea").input_value()
    assert page.locator('a[download="mask.png"]').count() == 1
    shoot(page, "demo_inpaint.png")


def test_an_animation_is_made_and_saved(opened):
    page = opened()
    on_tab(page, "Animate")
    begin(page, "animate")
    (image,) = done(page, "animate")
    assert image.startswith("data:image/gif;base64,")
    with page.expect_download() as saved:
        page.locator("#animate-results a[download]").click()
    assert saved.value.suggested_filename == "animation.gif"
    with Image.open(saved.value.path()) as film:
        # x_T, the image, and what lies between, where a chain has so many.
        command = page.locator("#animate-command textarea").input_value()
        steps, frames = (
            int(re.search(rf"--{name}=(\d+)", command)[1])
            for name in ("config.sampling.steps", "frames")
        )
        assert film.n_frames == frames == min(16, steps + 1)
    shoot(page, "demo_animate.png")


def test_an_animation_is_stopped_between_two_evaluations(opened):
    page = opened()
    on_tab(page, "Animate")
    page.get_by_label("walk").locator("visible=true").check()
    page.get_by_text("More settings").locator("visible=true").click()
    for label, number in (("Frames", 48), ("Steps", 24)):
        field = page.get_by_label(f"number input for {label}").locator("visible=true")
        field.fill(str(number))
        field.press("Tab")
    begin(page, "animate")
    page.locator("#animate-status", has_text=f"of {48 * 24} evaluations").wait_for()
    page.click("#animate-stop")
    page.locator("#animate-status", has_text="Stopped on request.").wait_for()
    on_tab(page, "Sample")
    begin(page, "sample")
    assert len(done(page, "sample")) == 4
    assert "Stopped" in page.locator("#animate-status").text_content()


def test_the_slider_of_t_is_moved_by_keys(opened):
    page = opened()
    on_tab(page, "How it works")
    page.click("#how-take")
    page.locator("#how-results img").first.wait_for()
    slider = page.locator("#how-t input[type=range]")
    before = page.locator("#how-results").inner_text()
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.wait_for_function(
        "before => document.querySelector('#how-results').innerText !== before",
        arg=before,
    )
    page.locator("#how-results", has_text="its estimate of x0").wait_for()
    shoot(page, "demo_how.png")


def test_keys_alone_make_a_sample(opened):
    page = opened()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "sample-go":
            break
    assert page.evaluate("document.activeElement.id") == "sample-go"
    page.keyboard.press("Enter")
    assert len(done(page, "sample")) == 4


CONTRAST = """() => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).map(Number);
    const [r, g, b] = parts.slice(0, 3).map((v) => v / 255).map(
      (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const found = getComputedStyle(one).backgroundColor;
      const parts = found.match(/[\\d.]+/g).map(Number);
      if (parts.length < 4 || parts[3] === 1) return found;
    }
    return 'rgb(255, 255, 255)';
  };
  const faults = [];
  for (const one of document.querySelectorAll('body *')) {
    const own = [...one.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const seen = one.getBoundingClientRect();
    if (!own || !seen.width || !seen.height || one.closest('svg, script, style'))
      continue;
    const style = getComputedStyle(one);
    if (style.visibility !== 'visible' || style.opacity === '0') continue;
    const pair = [light(style.color), light(behind(one))].sort((a, b) => b - a);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05);
    if (ratio < 4.5)
      faults.push(`${ratio.toFixed(1)} ${one.innerText.slice(0, 40)} ${style.color}`);
  }
  return faults;
}"""


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_tab_fits_and_can_be_read(opened, size):
    page = opened(size)
    for name in TABS:
        if not page.get_by_role("tab", name=name).is_visible():
            page.locator(".overflow-menu button").first.click()
            page.locator(".overflow-dropdown button", has_text=name).click()
        else:
            on_tab(page, name)
        page.wait_for_timeout(200)
        wide = page.evaluate("document.scrollingElement.scrollWidth - innerWidth")
        assert wide <= 0, name
        assert page.evaluate(CONTRAST) == [], name
    if size is PHONE:
        page = opened(size)
        begin(page, "sample")
        done(page, "sample")
        shoot(page, "demo_phone.png")


def test_pictures_that_are_sent_are_fitted_or_refused_and_deleted(
    served, opened, tmp_path
):
    Image.new("1", (6000, 5000)).save(tmp_path / "large.png")
    (tmp_path / "damaged.png").write_bytes((tmp_path / "large.png").read_bytes()[:99])
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "good.png")
    page = opened()
    on_tab(page, "Inpaint")
    for name, told in (
        ("large.png", "has 30.0 million pixels"),
        ("damaged.png", "damaged.png"),
        ("good.png", "scaled and cut"),
    ):
        with page.expect_file_chooser() as chooser:
            page.click("#inpaint-upload")
        chooser.value.set_files(tmp_path / name)
        page.locator("#inpaint-picture", has_text=told).wait_for()
    left = [one for one in served.scratch.rglob("*.png") if one.is_file()]
    assert left == []


PLACES = (
    "/gradio_api/file={}",
    "/file={}",
    "/gradio_api/file=../..{}",
    "/static/../../../../../../../..{}",
    "/assets/..%2f..%2f..%2f..%2f..%2f..{}",
    "/gradio_api/proxy=file://{}",
)


def test_no_file_of_the_machine_is_told(served, played, tmp_path):
    secrets = ["/etc/passwd", str(played.absolute() / "config.json")]
    contents = [pathlib.Path(one).read_bytes()[:40] for one in secrets]
    for secret in secrets:
        for place in PLACES:
            status, told = served.get(place.format(secret))
            assert status >= 400, place
            assert not any(content in told for content in contents)
    # Files named where the page names those that were sent.
    functions, _ = served.functions()
    uploads = [one for one in functions if one[1] == ["uploadbutton"]]
    assert uploads
    other = tmp_path / "other.png"
    Image.new("L", (8, 8)).save(other)
    asked = [str(other), f"{served.url}/theme.css", "/etc/passwd"]
    for turn, path in enumerate(asked):
        for stream in (False, True):
            given = {"path": path, "meta": {"_type": "gradio.FileData"}}
            given["is_stream"] = stream
            session = f"secret{turn}{stream}"
            answer = served.ask(uploads[0][0], [given], session)
            told = json.dumps(answer)
            assert not answer["success"] or "was not sent to this page" in told
            # Of any input: no field may be a file.
            number, values = sampling(served)
            answer = served.ask(number, [given, *values[1:]], f"{session}_")
            assert "data:image" not in json.dumps(answer)
    assert other.exists()
    copies = [one.name for one in served.scratch.rglob("*") if one.is_file()]
    assert not {"other.png", "theme.css", "passwd"} & set(copies)


def sampling(served):
    """Return number and values of the event that samples, in a single step."""
    functions, props = served.functions()
    number, _, inputs = functions[0]
    values = {props[i]["label"]: props[i].get("value") for i in inputs}
    assert "Steps" in values
    return number, list({**values, "Steps": 1}.values())


def test_twenty_at_once_are_answered(served):
    number, values = sampling(served)
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        asked = [
            pool.submit(served.ask, number, values, f"many{turn}") for turn in range(40)
        ]
        answers = [one.result() for one in asked]
    made = [one for one in answers if one["success"]]
    refused = [one for one in answers if not one["success"]]
    assert len(made) >= 20
    assert all("Done." in json.dumps(one) for one in made)
    assert all("ueue" in json.dumps(one["output"]) for one in refused)


def test_memory_stays(served):
    number, values = sampling(served)

    def ask(turn):
        assert served.ask(number, values, f"memory{turn}")["success"]

    # Of so many windows the last results are remembered.
    for turn in range(server.MOST_WINDOWS + 20):
        ask(turn)
    before = served.memory()
    for turn in range(1000, 1200):
        ask(turn)
    print(f"memory {before:.0f} MiB, after 200 requests {served.memory():.0f} MiB")
    assert served.memory() - before < 40


def test_a_closed_window_frees_the_queue(served, opened, browser):
    number, values = sampling(served)
    context = browser.new_context()
    page = context.new_page()
    page.goto(served.url)
    page.wait_for_selector("#sample-go")
    begin(page, "sample")
    context.close()
    answer = served.ask(number, values, "next")
    assert answer["success"]


def test_a_second_one_on_the_port_is_refused(served, played):
    command = [sys.executable, "-m", "ddpm_jax.main", "--mode=demo"]
    told = subprocess.run(
        [*command, f"--workdir={played}", f"--port={served.port}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert told.returncode == 1
    assert f"--port={served.port}: Address already in use" in told.stderr
