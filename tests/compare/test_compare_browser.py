"""The page in a browser, opened from disk: what is seen after each key and button."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import HEIGHT, WIDTH, film
from reading import Array, frames_of

from vs_vsr import cli

pytestmark = pytest.mark.slow

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("no chromium and chromedriver here (Debian: chromium, chromium-driver)")
    from selenium.common.exceptions import SessionNotCreatedException

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        *("headless=new", "no-sandbox", "disable-gpu", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    except SessionNotCreatedException as e:
        pytest.skip(f"chromium and chromedriver do not fit together: {e.msg}")
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two sources, and one of a clip."""
    folder = tmp_path_factory.mktemp("pages")
    film(folder / "a.mkv", range(0, 800, 40))
    # Other pictures at the same times.
    film(folder / "<b>&.mkv", range(0, 1600, 80), options={"preset": "veryfast", "crf": "45"})
    names = [str(folder / name) for name in ("a.mkv", "<b>&.mkv")]
    for out, when in (("page.html", ["--at", "0.2", "0.4"]), ("clip.html", ["--clip", "0", "0.4"])):
        assert cli.main(["compare", *names, *when, "--out", str(folder / out)]) == 0
    return folder


def seen(browser: Any) -> Array:
    """The pixels of the view, (H, W, 3)."""
    width, height, values = browser.execute_script(
        "const c = document.getElementById('canvas');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        "return [c.width, c.height, Array.from(d)]"
    )
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def errors(browser: Any) -> list[Any]:
    """What went wrong in the page; its console also warns of the readings of `seen`."""
    return [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def until(is_so: Callable[[], bool]) -> None:
    """Wait for what the page does by itself."""
    for _ in range(200):
        if is_so():
            return
        time.sleep(0.05)
    raise AssertionError("it never came")


def sized(browser: Any, width: int, height: int, *, dark: bool = False) -> None:
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def opened(browser: Any, page: Path) -> None:
    # A view of twice the pictures' size, so that each of their pixels is 2x2 there.
    sized(browser, 2 * WIDTH + 24, 900)
    browser.get(page.as_uri())
    browser.execute_script(
        f"const v = document.getElementById('view'); v.style.width = '{2 * WIDTH}px';"
        f"v.style.margin = '0'; v.style.maxHeight = 'none'"
    )
    until(lambda: seen(browser).shape == (2 * HEIGHT, 2 * WIDTH, 3))
    until(lambda: bool(browser.execute_script("return images.every((i) => i.complete)")))


def pressed(browser: Any, keys: str) -> None:
    browser.find_element("id", "canvas").send_keys(keys)


def split(browser: Any, value: int) -> None:
    browser.execute_script(
        "const s = document.getElementById('split'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('input'))",
        value,
    )


def test_slider_choice_keys_and_zoom(browser: Any, folder: Path) -> None:
    opened(browser, folder / "page.html")
    first, second = frames_of(folder / "a.mkv"), frames_of(folder / "<b>&.mkv")

    def double(picture: Array) -> Array:
        return picture.repeat(2, 0).repeat(2, 1)

    def shows(picture: Array) -> bool:
        return np.array_equal(seen(browser), double(picture))

    # Left of the line the first, right of it the second, bit for bit, in the middle and moved.
    for value, edge in ((50, WIDTH), (75, WIDTH * 3 // 2)):
        split(browser, value)
        view = seen(browser)
        for part, picture in (((0, edge - 12), first[5]), ((edge + 12, None), second[2])):
            assert np.array_equal(view[:, slice(*part)], double(picture)[:, slice(*part)])
    names = browser.find_elements("css selector", ".name:not([hidden])")
    assert [name.text for name in names] == ["a.mkv", "<b>&.mkv"]
    # The slider by the pointer, and by the keys of the picture.
    actions = webdriver.ActionChains(browser)
    canvas = browser.find_element("id", "canvas")
    actions.move_to_element_with_offset(canvas, 32, 0).click_and_hold()
    actions.move_by_offset(-64, 10).release().perform()
    assert browser.execute_script("return state.split") == 0.25
    pressed(browser, "\ue014")  # the right arrow
    assert browser.execute_script("return state.split") == 0.26

    pressed(browser, "2")
    assert shows(second[2])
    pressed(browser, ".")
    assert shows(second[5]) and "0:00.400 (2 of 2)" in browser.find_element("id", "at").text
    pressed(browser, "1")
    assert shows(first[10])
    pressed(browser, "\ue00c")  # Esc
    browser.find_element("id", "swap").click()
    split(browser, 100)
    assert np.array_equal(seen(browser)[:, :90], double(second[5])[:, :90])

    # Held, it is the right one; let go, as before.
    hold = browser.find_element("id", "hold")
    webdriver.ActionChains(browser).click_and_hold(hold).perform()
    assert shows(first[10])
    webdriver.ActionChains(browser).release().perform()
    assert np.array_equal(seen(browser)[:, :90], double(second[5])[:, :90])
    pressed(browser, "b")
    until(lambda: shows(first[10]))
    until(lambda: shows(second[5]))
    pressed(browser, "b")

    # Four times as large, around the middle; the same place in both.
    pressed(browser, "1")
    browser.execute_script("zoomTo(4)")
    enlarged = first[10].repeat(4, 0).repeat(4, 1)
    view = seen(browser)
    assert np.array_equal(view, enlarged[HEIGHT : 3 * HEIGHT, WIDTH : 3 * WIDTH])
    # To the left as far as it goes.
    pressed(browser, "\ue012" * 20)
    assert np.array_equal(seen(browser), enlarged[HEIGHT : 3 * HEIGHT, : 2 * WIDTH])
    pressed(browser, "20")
    assert shows(second[5])
    pressed(browser, "2a")
    view = seen(browser)
    assert np.array_equal(view[HEIGHT // 2 : -HEIGHT // 2, :WIDTH], first[10])
    assert np.array_equal(view[HEIGHT // 2 : -HEIGHT // 2, WIDTH:], second[5])
    assert errors(browser) == []


def test_a_clip_is_played(browser: Any, folder: Path) -> None:
    opened(browser, folder / "clip.html")
    assert browser.find_element("id", "at").text == "0:00.000"
    pressed(browser, " ")
    assert browser.find_element("id", "play").text == "Pause"
    until(lambda: browser.execute_script("return state.moment") >= 5)
    # To the end, and again.
    until(lambda: browser.execute_script("return state.moment") < 5)
    browser.find_element("id", "play").click()
    stopped = browser.execute_script("return state.moment")
    browser.find_element("id", "before").click()
    assert browser.execute_script("return state.moment") == max(0, stopped - 1)
    assert errors(browser) == []


@pytest.mark.parametrize("dark", [False, True])
def test_at_the_width_of_a_phone_nothing_sticks_out(browser: Any, folder: Path, dark: bool) -> None:
    sized(browser, 360, 740, dark=dark)
    browser.get((folder / "clip.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    for element in browser.find_elements("css selector", "button, select, input"):
        assert element.rect["height"] >= 36 and element.rect["x"] >= 0
        assert element.rect["x"] + element.rect["width"] <= 360
    colours = browser.execute_script(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )
    sums = [sum(int(n) for n in c.removeprefix("rgb(")[:-1].split(",")) for c in colours]
    assert (sums[0] < 150 and sums[1] > 600) if dark else (sums[0] > 600 and sums[1] < 150)
