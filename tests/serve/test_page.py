"""The page in a real browser, against the real server in a process of its own.

It needs Debian's chromium and chromium-driver, selenium, and the released weights of AnimeSR.
"""

import base64
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import av
import numpy as np
import pytest
from conftest import environment
from films import film

from vs_vsr.serve.jobs import Job, Preview

pytestmark = pytest.mark.slow

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
# Nothing that chromium would do by itself.
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
ANIME = "AnimeSR/v2"  # the quickest


class Serving:
    """`vs-vsr serve` with a folder; it can be killed and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.address = self.start()

    def start(self) -> str:
        command = [sys.executable, "-m", "vs_vsr", "serve", "--port", str(self.port)]
        command += ["--device", "cpu", "--folder", str(self.folder)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment(), "OMP_NUM_THREADS": "1", "VSR_OFFLINE": "1"},
        )
        assert self.process.stdout
        address, port = re.findall(
            r"(http://127\.0\.0\.1:(\d+)/\S+)", self.process.stdout.readline()
        )[0]
        self.port = int(port)
        return str(address)

    def stop(self, kind: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(kind)
        self.process.communicate()

    def empty(self) -> None:
        """Remove all jobs and uploads, as a user does."""
        address, _, token = self.address.partition("?token=")
        let_in = {"Authorization": f"Bearer {token}"}
        for kind in ("jobs", "uploads"):
            with urlopen(Request(f"{address}api/{kind}", headers=let_in)) as answer:
                ids = [one["id"] for one in json.load(answer)]
            for one in ids:
                where = f"{address}api/{kind}/{one}"
                urlopen(Request(where, headers=let_in, method="DELETE")).close()

    def job(self) -> dict[str, Any]:
        """What is on disk of the only job."""
        (about,) = self.folder.glob("*/job.json")
        job: dict[str, Any] = json.loads(about.read_text())
        return job


class Page:
    """What a user sees and does."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        self.driver.get(address)
        # The choices are there once the server has told of them.
        self.until("document.querySelector('#footage input')")

    def js(self, script: str, *given: Any) -> Any:
        return self.driver.execute_script(script, *given)

    def until(self, condition: str, *given: Any) -> Any:
        """Wait for something of the page, at most as long as a slow machine may need."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            found = self.js(f"return {condition}", *given)
            if found:
                return found
            time.sleep(0.05)
        seen = self.js("return document.body.innerText")
        raise AssertionError(f"{condition} has not become true. The page says: {seen}")

    def says(self, words: str) -> None:
        self.until("document.body.innerText.includes(arguments[0])", words)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def press(self, label: str, within: str = "body") -> None:
        """Press the button that is called so."""
        self.until(
            "[...document.querySelector(arguments[0]).querySelectorAll('button')].some(b => "
            "b.textContent === arguments[1] && b.checkVisibility())",
            within,
            label,
        )
        self.js(
            "[...document.querySelector(arguments[0]).querySelectorAll('button')].find(b => "
            "b.textContent === arguments[1] && b.checkVisibility()).click()",
            within,
            label,
        )

    def upload(self, *paths: Path) -> None:
        self.find("#file").send_keys("\n".join(map(str, paths)))

    def drop(self, name: str, content: bytes) -> None:
        """Drop a file that no file system would let be called so."""
        self.js(
            "const bytes = Uint8Array.from(atob(arguments[1]), c => c.charCodeAt(0));"
            "const data = new DataTransfer(); data.items.add(new File([bytes], arguments[0]));"
            "document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, cancelable: true}))",
            name,
            base64.b64encode(content).decode(),
        )

    def states(self) -> list[str]:
        """Of the videos, from the top."""
        badges: list[str] = self.js(
            "return [...document.querySelectorAll('#queue .badge')].map(b => b.textContent)"
        )
        return badges

    def until_states(self, *states: str) -> None:
        self.until(
            "JSON.stringify([...document.querySelectorAll('#queue .badge')].map(b => "
            "b.textContent)) === arguments[0]",
            json.dumps(states, separators=(",", ":")),
        )

    def tab_to(self, selector: str) -> Any:
        """Get somewhere by the keyboard alone."""
        tab = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
        for _ in range(80):
            if self.js("return document.activeElement.matches(arguments[0])", selector):
                assert self.js("return document.activeElement.matches(':focus-visible')")
                return self.driver.switch_to.active_element
            for kind in ("rawKeyDown", "keyUp"):
                self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, **tab})
        raise AssertionError(f"{selector} cannot be reached by the keyboard")

    def looks(self, *, width: int = 1280, dark: bool = False) -> None:
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme, still]})

    def no_complaints(self) -> None:
        """Neither of the policy nor of the script; what the server refuses is said in the page."""
        logged = [
            line["message"]
            for line in self.driver.get_log("browser")
            if "Failed to load resource" not in line["message"]
        ]
        assert logged == []


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not CHROMIUM or not DRIVER or importlib.util.find_spec("selenium") is None:
        pytest.skip("no chromium, chromedriver or selenium: the page was not tried in a browser")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


@pytest.fixture
def page(driver: Any) -> Page:
    driver.get("about:blank")
    driver.get_log("browser")
    page = Page(driver)
    page.looks()
    return page


@pytest.fixture(scope="module")
def server(driver: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    server = Serving(tmp_path_factory.mktemp("served"))
    yield server
    server.stop(signal.SIGTERM)


@pytest.fixture
def serving(server: Serving, real_weights: None) -> Iterator[Serving]:
    """The server, with nothing in it."""
    yield server
    server.empty()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return film(tmp_path_factory.mktemp("clips") / "clip.mkv", [40 * n for n in range(12)])


def test_from_an_upload_to_a_download(
    page: Page, serving: Serving, clip: Path, tmp_path: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(serving.address)
    assert "token" not in page.driver.current_url
    page.upload(clip)
    page.until("!detail.hidden")
    page.find("#footage [value=anime]").click()
    page.says("AnimeSR v2: trained on degraded animation")
    page.press("Show three frames")
    page.until("!viewer.hidden && document.querySelectorAll('#times input').length === 3")
    # Both halves of a picture that is four times as large as the source.
    page.until("before.complete && before.naturalWidth === 2 * 4 * 64")
    clipped = page.js("return before.style.clipPath")
    page.find("#split").send_keys(Keys.ARROW_LEFT)
    assert page.js("return split.value") == "49"
    assert page.js("return before.style.clipPath") != clipped
    second = page.js("return before.src")
    page.find("#times label:last-child").click()
    page.until("before.src !== arguments[0]", second)

    page.press("Estimate")
    page.says("for 12 pictures. The file will be 256 \u00d7 192 and about")
    page.press("Start", "#actions")
    page.until_states("Done")
    saved = tmp_path / "saved"
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(saved)}
    )
    page.press("Download", "#actions")
    end = time.monotonic() + 60
    while not (saved / "clip upscaled.mkv").exists() and time.monotonic() < end:
        time.sleep(0.05)
    with av.open(str(saved / "clip upscaled.mkv")) as file:
        sizes = [(frame.width, frame.height) for frame in file.decode(video=0)]
    assert sizes == [(256, 192)] * 12
    page.no_complaints()


def test_networks_side_by_side_by_the_keyboard_alone(
    page: Page, serving: Serving, clip: Path
) -> None:
    from selenium.webdriver.common.keys import Keys

    page.looks(width=360)
    page.open(serving.address)
    page.tab_to("#browse").send_keys(Keys.ENTER)
    page.until("files.open && folder.value")
    page.js("folder.select()")
    page.tab_to("#folder").send_keys(str(clip.parent), Keys.ENTER)
    page.says("clip.mkv")
    page.js("folder.focus()")
    page.tab_to("#entries li:last-child button").send_keys(Keys.ENTER)
    page.until("!detail.hidden && document.activeElement.id === 'name'")
    page.tab_to("#compare summary").send_keys(Keys.ENTER)
    for choice in ("AnimeSR/v1", ANIME):
        page.tab_to(f'#networks [value="{choice}"]').send_keys(Keys.SPACE)
    page.tab_to("#several").send_keys(Keys.ENTER)
    page.until("document.querySelectorAll('#panels figure').length === 3")
    names = page.js(
        "return [...document.querySelectorAll('figcaption span')].map(e => e.innerText)"
    )
    assert names == ["Before", "AnimeSR v2", "AnimeSR v1"]
    # All are moved as one.
    page.tab_to("#zoom").send_keys("4")
    page.until("document.querySelector('#panels .frame').offsetWidth === 4 * 256")
    page.tab_to("#panels .window").send_keys(Keys.ARROW_RIGHT)
    page.until("[...document.querySelectorAll('#panels .window')].every(w => w.scrollLeft > 0)")
    page.tab_to('[aria-label="Use this: AnimeSR v2"]').send_keys(Keys.ENTER)
    page.until("document.querySelector('#footage :checked').value === 'anime'")
    assert serving.job()["choice"] == ANIME
    page.no_complaints()


def test_one_runs_and_others_wait_and_are_paused_and_cancelled(
    page: Page, serving: Serving, tmp_path: Path
) -> None:
    # Of several parts, so that neither is done before it is paused.
    clip = film(tmp_path / "clip.mkv", [40 * n for n in range(3000)])
    page.open(serving.address)
    page.upload(clip, Path(shutil.copy(clip, tmp_path / "other.mkv")))
    page.until_states("Not started", "Not started")
    for name in ("clip.mkv", "other.mkv"):
        page.press(name)
        page.find("#footage [value=anime]").click()
        page.says("AnimeSR v2: ")
        page.js("document.querySelector('#actions .main').click()")
        page.until("setup.hidden")
    page.until_states("Running", "Waiting")
    page.js("document.querySelector('[aria-label=\"Cancel: clip.mkv\"]').focus()")
    page.press("Pause", "#queue li:first-child")
    page.until_states("Running", "Paused")
    # Whatever has moved, the keyboard is where it was.
    assert page.js("return document.activeElement.ariaLabel") == "Cancel: clip.mkv"
    page.press("Cancel", "#queue li:first-child")
    # Nothing is lost without a question.
    page.until("sure.open")
    page.press("Keep it", "#sure")
    page.press("Cancel", "#queue li:last-child")
    page.press("Cancel it", "#sure")
    page.until_states("Running", "Cancelled")
    page.press("Cancel", "#queue li:first-child")
    page.press("Cancel it", "#sure")
    page.until_states("Cancelled", "Cancelled")
    assert not list(serving.folder.glob("*/work/*"))
    page.press("clip.mkv")
    page.press("Remove", "#actions")
    page.press("Remove", "#sure")
    page.until_states("Cancelled")
    page.no_complaints()


def test_a_server_that_is_killed_and_started_again(
    page: Page, serving: Serving, clip: Path
) -> None:
    page.open(serving.address)
    page.upload(clip)
    page.until("!detail.hidden")
    page.find("#footage [value=anime]").click()
    page.says("AnimeSR v2: ")
    page.press("Start", "#actions")
    page.until_states("Running")
    serving.stop()
    page.says("The server does not answer. This page goes on by itself when it is back.")
    serving.start()
    page.until("!connection.textContent")
    page.until_states("Done")
    page.no_complaints()


def test_two_tabs_show_the_same(page: Page, serving: Serving, clip: Path) -> None:
    page.open(serving.address)
    (first,) = page.driver.window_handles
    page.driver.switch_to.new_window("tab")
    try:
        page.open(serving.address.partition("?")[0])
        page.upload(clip)
        page.until("!detail.hidden")
        second = page.driver.current_window_handle
        page.driver.switch_to.window(first)
        page.press("clip.mkv")
        page.find("#footage [value=real]").click()
        page.says("RealBasicVSR reds: ")
        page.driver.switch_to.window(second)
        page.until("document.querySelector('#footage :checked').value === 'real'")
        page.press("Remove", "#actions")
        page.press("Remove", "#sure")
        page.driver.switch_to.window(first)
        page.until("!welcome.hidden && !empty.hidden")
    finally:
        page.driver.switch_to.window(page.driver.window_handles[-1])
        page.driver.close()
        page.driver.switch_to.window(first)


def test_an_upload_that_is_cut_off_goes_on(
    page: Page, serving: Serving, clip: Path, tmp_path: Path
) -> None:
    noise = np.random.default_rng(1).bytes(20_000_000)
    # Matroska's players leave alone what follows a file.
    large = tmp_path / "large.mkv"
    large.write_bytes(clip.read_bytes() + noise)
    page.open(serving.address)
    speed = {"offline": False, "latency": 0, "downloadThroughput": -1}
    page.driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions", {**speed, "uploadThroughput": 8_000_000}
    )
    page.upload(large)
    page.until("document.querySelector('#uploads progress')?.value > 0")
    serving.stop()
    page.driver.execute_cdp_cmd(
        "Network.emulateNetworkConditions", {**speed, "uploadThroughput": -1}
    )
    page.says("Connection lost. It goes on by itself when the server answers.")
    (begun,) = serving.folder.glob("*/source")
    assert 0 < begun.stat().st_size < large.stat().st_size
    serving.start()
    page.until("!detail.hidden")
    # A new one would be in a folder of its own.
    assert list(serving.folder.glob("*/source")) == [begun]
    assert begun.read_bytes() == large.read_bytes()
    page.no_complaints()


def test_an_upload_that_another_page_had_begun(
    page: Page, serving: Serving, clip: Path, tmp_path: Path
) -> None:
    page.open(serving.address)
    content = clip.read_bytes()
    page.js(
        "const [name, bytes, data, modified] = arguments;"
        "return fetch('/api/uploads', {method: 'POST',"
        " headers: {'Content-Type': 'application/json'},"
        " body: JSON.stringify({name, bytes, modified})}).then(r => r.json()).then(u =>"
        " fetch(`/api/uploads/${u.id}`, {method: 'PATCH', headers: {'Upload-Offset': '0'},"
        " body: Uint8Array.from(atob(data), c => c.charCodeAt(0))}))",
        clip.name,
        len(content),
        base64.b64encode(content[:1000]).decode(),
        clip.stat().st_mtime_ns // 10**6,
    )
    (begun,) = serving.folder.glob("*/source")
    page.driver.refresh()
    page.says("1.0 kB of")
    page.says("Choose the same file again, and it goes on from there.")
    # Another file of this name and size is changed at another time.
    page.drop(clip.name, b"\0" * len(content))
    page.until("document.querySelector('#uploads .line.bad')")
    assert begun.stat().st_size == 1000
    page.press("Remove", "#uploads li:last-child")
    page.upload(clip)
    page.until("!detail.hidden")
    assert page.js("return document.querySelectorAll('#uploads li').length") == 0
    assert list(serving.folder.glob("*/source")) == [begun]
    assert begun.read_bytes() == content


def test_an_upload_that_is_refused_or_whose_answer_is_lost(
    page: Page, serving: Serving, clip: Path
) -> None:
    page.open(serving.address)
    page.js(
        "const real = fetch, refusals = [413, 507]; let lost = false;"
        "window.fetch = async (path, about) => {"
        "  if (about?.method === 'PATCH' && path.startsWith('/api/uploads') && refusals.length)"
        "    return Response.json({problem: 'It went wrong.'}, {status: refusals.shift()});"
        "  const answer = await real(path, about);"
        "  if (about?.method !== 'POST' || path !== '/api/jobs' || lost) return answer;"
        "  lost = true; throw new TypeError('no answer'); }"
    )
    page.upload(clip)
    page.until("document.querySelector('#uploads .line.bad')")
    (begun,) = serving.folder.glob("*/source")
    # Chosen again, the old row goes: it could only remove what the new one sends.
    page.upload(clip)
    page.says("Go on")
    assert page.js("return document.querySelectorAll('#uploads li').length") == 1
    page.press("Go on", "#uploads")
    page.says("Connection lost.")
    page.until("!document.querySelector('#uploads li')")
    page.until_states("Not started")
    assert list(serving.folder.glob("*/source")) == [begun]
    page.no_complaints()


def test_more_tabs_than_connections(page: Page, server: Serving) -> None:
    page.open(server.address)
    (first,) = page.driver.window_handles
    try:
        # A browser has six for one server.
        for _ in range(7):
            page.driver.switch_to.new_window("tab")
            page.open(server.address.partition("?")[0])
            page.until("!empty.hidden")
    finally:
        for tab in page.driver.window_handles:
            if tab != first:
                page.driver.switch_to.window(tab)
                page.driver.close()
        page.driver.switch_to.window(first)


NAMES = (
    "../x.mkv",
    "a" * 4096 + ".mkv",
    "<script>document.title = 'x'</script><img src=x onerror=\"document.title='x'\">.mkv",
    "a\0b.mkv",
)


def test_hostile_names_are_only_text(page: Page, serving: Serving, clip: Path) -> None:
    page.looks(width=360)
    page.open(serving.address)
    for name in NAMES:
        page.drop(name, clip.read_bytes())
    page.until_states(*["Not started"] * 4)
    # Each as a whole: no name has made an element.
    assert page.js("return document.querySelectorAll('#queue script, #queue img').length") == 0
    assert page.js("return document.title") == "vs-vsr"
    shown = page.js("return [...document.querySelectorAll('#queue .name')].map(b => b.innerText)")
    assert any(name.startswith("<script>document.title") for name in shown)
    assert page.js("return document.documentElement.scrollWidth") == 360
    kept = {path.name for path in serving.folder.glob("*/*")}
    assert kept == {"job.json", "source"}
    assert not list(serving.folder.parent.rglob("x.mkv"))
    page.no_complaints()


def test_a_text_file_is_no_video(page: Page, serving: Serving) -> None:
    page.open(serving.address)
    page.drop("notes.mkv", b"Buy milk.\n")
    page.until("document.querySelector('#uploads .line.bad')")
    said = page.find("#uploads .line").text
    assert "got notes.mkv" in said and said.endswith(".")
    page.press("Remove", "#uploads")
    page.until("!document.querySelector('#uploads li')")
    assert page.states() == []
    assert not list(serving.folder.glob("*/source"))


def png(path: Path) -> None:
    """A picture before and after, 64x48 each."""
    path.parent.mkdir(exist_ok=True)
    frame = av.VideoFrame.from_ndarray(np.full((48, 128, 3), 90, np.uint8), format="rgb24")
    with av.open(str(path), "w", format="image2") as out:
        stream: Any = out.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 128, 48, "rgb24"
        for packet in stream.encode(frame) + stream.encode(None):
            out.mux(packet)


def seeded(folder: Path, clip: Path) -> None:
    """One job of each kind that stays as it is."""
    previews = [
        Preview(number=n, choice=choice, time=0.08, width=128, height=48)
        for n, choice in enumerate((ANIME, "BasicVSR/reds4"), 1)
    ]
    told = {"seconds": 100, "bytes": 10**6, "width": 256, "height": 192, "pictures": 12}
    kinds: dict[str, dict[str, Any]] = {
        "new": {"previews": previews, "forecast": told, "notes": ["Dolby Vision is dropped."]},
        "paused": {"state": "paused", "choice": ANIME, "size": "2x"},
        "failed": {
            "state": "failed",
            "problem": "clip.mkv must have pictures, got none. Choose another file.",
        },
        "done": {"state": "done", "choice": ANIME, "previews": previews},
        "known": {"choice": "VRT/denoise", "footage": "noise-known"},
    }
    for name, changes in kinds.items():
        job = Job(folder=folder / name, name=f"{name}.mkv", bytes=9, source=str(clip), seconds=1.0)
        job.folder.mkdir()
        for key, value in changes.items():
            setattr(job, key, value)
        for preview in job.previews:
            png(job.preview_file(preview.number))
        if job.state == "done":
            job.result.write_bytes(b"x")
        job.save()


def test_choices_and_buttons_of_each_state(page: Page, clip: Path, tmp_path: Path) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    seeded(folder, clip)
    serving = Serving(folder)
    try:
        (folder / "done" / "result.mkv").unlink()
        page.open(serving.address)
        page.press("done.mkv")
        verbs = "return [...document.querySelectorAll('#actions button')].map(b => b.textContent)"
        assert page.js(verbs) == ["Remove"]
        page.press("failed.mkv")
        assert page.js(verbs) == ["Start again", "Start over", "Remove"]
        page.press("Start over", "#actions")
        page.press("Start over", "#sure")
        page.until("document.querySelector('#state').textContent.startsWith('Cancelled')")
        page.js("more.open = true")
        page.find("#pictures [value=bwdif]").click()
        about = folder / "failed" / "job.json"
        page.until(
            "fetch('/api/jobs/failed').then(a => a.json()).then(j => j.pictures === 'bwdif')"
        )
        assert json.loads(about.read_text())["pictures"] == "bwdif"
        page.no_complaints()
    finally:
        serving.stop(signal.SIGTERM)


def test_axe_finds_nothing_wrong(
    page: Page, driver: Any, real_weights: None, clip: Path, tmp_path: Path
) -> None:
    path = os.environ.get("VSR_AXE")
    if not path:
        pytest.skip("VSR_AXE does not name axe.min.js of axe-core: contrast and labels untested")
    folder = tmp_path / "served"
    folder.mkdir()
    seeded(folder, clip)
    serving = Serving(folder)
    try:
        for width, dark in ((1280, False), (1280, True), (360, False), (360, True)):
            look = f"{width} pixels wide, {'dark' if dark else 'light'}"
            page.looks(width=width, dark=dark)
            page.open(serving.address)
            page.until("document.querySelectorAll('#queue li').length === 5")
            page.js(Path(path).read_text())
            clean(page, f"the first sight, {look}")
            for name in ("new", "paused", "failed", "done", "known"):
                page.press(f"{name}.mkv")
                clean(page, f"{name}, {look}")
            page.press("new.mkv")
            page.js("more.open = compare.open = true; beside.click()")
            clean(page, f"side by side, {look}")
            page.press("Compare")
            clean(page, f"a refusal, {look}")
            page.drop("notes.mkv", b"Buy milk.\n")
            page.until("document.querySelector('#uploads .line.bad')")
            clean(page, f"an upload that is no video, {look}")
            page.press("Use one on this machine")
            page.until("files.open && folder.value")
            clean(page, f"files of this machine, {look}")
            page.press("Close", "#files")
            page.press("Remove", "#actions")
            clean(page, f"a question, {look}")
            page.press("Keep it", "#sure")
            assert page.js("return document.documentElement.scrollWidth <= innerWidth")
        page.press("Resume", "#queue")
        page.until("document.querySelector('.badge.running')")
        clean(page, "one runs")
        page.no_complaints()
    finally:
        serving.stop(signal.SIGTERM)


def clean(page: Page, where: str) -> None:
    """Hold what is seen against all rules of axe-core, those of good practice too."""
    found = page.driver.execute_async_script(
        "const done = arguments[0]; axe.run().then(r => done(r.violations.map(v =>"
        " `${v.id}: ${v.nodes.map(n => n.target.join(' ') + ' ' + n.failureSummary)}`)))"
    )
    assert not found, f"{where}: {found}"
