"""The page of a comparison in Chromium: it loads without complaint, its bodies turn, its table sorts.

Not collected with the other tests: `make test-browser` runs it. Chromium and its driver are Debian's.
"""

import base64
import io
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import comparison_examples as examples
import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from meshrec.comparison.page import page

DESKTOP, PHONE = (1280, 900), (390, 844)
SOFTWARE_WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
NO_WEBGL = ("--disable-3d-apis",)


@contextmanager
def chromium(path: Path, size: tuple[int, int] = DESKTOP, flags: tuple[str, ...] = SOFTWARE_WEBGL) -> Iterator:
    """A page that has started, in a window without a screen."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert browser and driver, "Chromium is not installed: apt-get install chromium chromium-driver"
    options = Options()
    options.binary_location = browser
    for flag in ("--headless=new", "--disable-dev-shm-usage", "--hide-scrollbars", *flags):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    try:
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        opened.get(path.as_uri())
        WebDriverWait(opened, 30).until(lambda each: each.execute_script(READY) == "yes")
        yield opened
    finally:
        opened.quit()


READY = "return document.documentElement.dataset.ready"
PIXELS = """
const canvas = arguments[0];
return [canvas.width, canvas.height, canvas.toDataURL("image/png")];
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("page") / "page.html"
    file.write_text(page(examples.comparison(), examples.exhibits(), examples.faces()), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser(path: Path) -> Iterator:
    with chromium(path) as opened:
        yield opened


def canvases(browser, exhibit: int = 0) -> list:
    """The bodies of one person, scrolled into sight and drawn."""
    element = browser.find_element(By.CSS_SELECTOR, f"[data-exhibit='{exhibit}']")
    browser.execute_script("arguments[0].querySelector('canvas').scrollIntoView({block: 'center'})", element)
    settle(browser)
    return element.find_elements(By.CSS_SELECTOR, "canvas.body")


def settle(browser) -> None:
    """Wait until what was asked for is drawn."""
    browser.execute_async_script(
        "const done = arguments[0]; setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 150)"
    )


def pixels(canvas) -> np.ndarray:
    """What a canvas shows: red, green, blue, opacity."""
    return np.asarray(Image.open(io.BytesIO(_png(canvas))).convert("RGBA")).astype(int)


def _png(canvas) -> bytes:
    return base64.b64decode(canvas.parent.execute_script(PIXELS, canvas)[2].split(",")[1])


def shape(canvas) -> np.ndarray:
    return pixels(canvas)[..., 3] > 127


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def view(browser, canvas, name: str) -> None:
    article = canvas.find_element(By.XPATH, "./ancestor::article")
    article.find_element(By.XPATH, f".//button[text()='{name}']").click()
    settle(browser)


def test_it_loads_without_complaint(browser) -> None:
    for exhibit in range(3):
        canvases(browser, exhibit)
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.dataset.drawnBy") == "webgl"
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert [name for name in loaded if not name.startswith("data:")] == []


def test_every_body_is_drawn(browser) -> None:
    for exhibit, count in enumerate((4, 4, 3)):
        shown = canvases(browser, exhibit)
        assert len(shown) == count
        for canvas in shown:
            found = pixels(canvas)
            assert 0.01 < (found[..., 3] > 127).mean() < 0.6
            assert len(np.unique(found[found[..., 3] == 255][:, :3], axis=0)) > (2 if "lift" in name(canvas) else 20)


def name(canvas) -> str:
    return canvas.get_attribute("data-answer")


def test_a_drag_turns_all_bodies_of_a_person_and_no_other(browser) -> None:
    other = pixels(canvases(browser, 1)[0])
    shown = canvases(browser)
    before = [pixels(canvas) for canvas in shown]
    ActionChains(browser).click_and_hold(shown[1]).move_by_offset(70, 25).release().perform()
    settle(browser)
    for canvas, old in zip(shown, before, strict=True):
        assert (np.abs(pixels(canvas) - old).max(-1) > 40).mean() > 0.005
    ActionChains(browser).double_click(shown[0]).perform()
    settle(browser)
    for canvas, old in zip(shown, before, strict=True):
        np.testing.assert_array_equal(pixels(canvas), old)
    np.testing.assert_array_equal(pixels(canvases(browser, 1)[0]), other)


def test_the_keyboard_and_the_sliders_turn_alike(browser) -> None:
    canvas = canvases(browser)[1]
    before = pixels(canvas)
    canvas.send_keys(Keys.ARROW_LEFT * 3 + Keys.ARROW_DOWN * 2)
    settle(browser)
    by_keys = pixels(canvas)
    assert (by_keys != before).any()
    sliders = [browser.find_element(By.CSS_SELECTOR, f"[data-exhibit='0'] input.{kind}") for kind in ("turn", "tilt")]
    assert [slider.get_attribute("value") for slider in sliders] == ["30", "20"]
    canvas.send_keys(Keys.HOME)
    for slider, presses in zip(sliders, (6, 4), strict=True):
        slider.send_keys(Keys.ARROW_RIGHT * presses)
    settle(browser)
    np.testing.assert_array_equal(pixels(canvas), by_keys)
    canvas.send_keys(Keys.HOME + "++")
    settle(browser)
    assert shape(canvas).sum() > 1.2 * (before[..., 3] > 127).sum(), "plus brings it nearer"
    view(browser, canvas, "as photographed")
    canvas.send_keys(Keys.HOME)


def test_from_behind_a_body_is_its_mirror_image(browser) -> None:
    canvas = canvases(browser)[3]
    front = shape(canvas)
    view(browser, canvas, "from behind")
    behind = shape(canvas)
    view(browser, canvas, "as photographed")
    assert overlap(behind, front[:, ::-1]) > 0.95 > overlap(behind, front)


RIGHT = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])
ABOVE = np.array([[1, 0, 0], [0, 0.5, -math.sqrt(0.75)], [0, math.sqrt(0.75), 0.5]])


@pytest.mark.parametrize(
    "name, turned", [("as photographed", np.eye(3)), ("from the right", RIGHT), ("from above", ABOVE)]
)
def test_a_body_stands_where_its_joints_are(browser, name: str, turned: np.ndarray) -> None:
    """x goes right and y goes down, about the middle of the picture, after a turn in the frame of the camera."""
    canvas, exhibit = canvases(browser)[3], examples.exhibits()[0]
    view(browser, canvas, name)
    drawn, joints_m = shape(canvas), exhibit.answers["truth"].joints17_m @ turned.T
    view(browser, canvas, "as photographed")
    reach_m = max(np.abs(each.vertices_m).max() for each in exhibit.answers.values() if each.vertices_m is not None)
    places = np.floor(len(drawn) / 2 * (1 + 0.92 * joints_m[:, :2] / reach_m)).astype(int)
    assert all(drawn[y, x] for x, y in places)
    assert not all(drawn[y, len(drawn) - 1 - x] for x, y in places), "left and right are not the same"


def test_the_truth_is_drawn_over_the_others_alone(browser) -> None:
    shown = canvases(browser)
    before = [pixels(canvas) for canvas in shown]
    browser.find_element(By.CSS_SELECTOR, "[data-exhibit='0'] input.ghost").click()
    settle(browser)
    changed = [(pixels(canvas) != old).any() for canvas, old in zip(shown, before, strict=True)]
    assert changed == [True, True, True, False]
    browser.find_element(By.CSS_SELECTOR, "[data-exhibit='0'] input.ghost").click()


def test_without_webgl_the_same_bodies_are_drawn(browser, path: Path) -> None:
    """The same shapes in the same colours, and the same parts in front, as they are seen from the right."""
    shaded = [pixels(canvas) for canvas in seen_from_the_right(browser)]
    view(browser, canvases(browser)[0], "as photographed")
    with chromium(path, flags=NO_WEBGL) as plain:
        painted = [pixels(canvas) for canvas in seen_from_the_right(plain)]
        assert plain.execute_script("return document.documentElement.dataset.drawnBy") == "canvas"
    for one, other in zip(shaded, painted, strict=True):
        assert overlap(one[..., 3] > 127, other[..., 3] > 127) > 0.9
        both = (one[..., 3] == 255) & (other[..., 3] == 255)
        apart = np.abs(one - other)[both].max(-1)
        assert (apart > 40).mean() < 0.1


def seen_from_the_right(browser) -> list:
    shown = canvases(browser)
    view(browser, shown[0], "from the right")
    return shown


def test_the_table_sorts_by_every_column_and_back(browser) -> None:
    table = browser.find_element(By.CSS_SELECTOR, "table.sortable")
    for column, order in ((1, ["mesh", "lift", "fit"]), (3, ["fit", "mesh", "lift"]), (0, ["fit", "lift", "mesh"])):
        heading = table.find_elements(By.CSS_SELECTOR, "thead th")[column]
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", heading)
        for direction, expected in (("ascending", order), ("descending", order[::-1])):
            heading.find_element(By.TAG_NAME, "button").click()
            rows = table.find_elements(By.CSS_SELECTOR, "tbody th")
            assert [row.text for row in rows] == expected
            assert heading.get_attribute("aria-sort") == direction


def test_a_branch_without_a_value_stays_last(browser) -> None:
    table = browser.find_element(By.CSS_SELECTOR, "table.sortable")
    button = table.find_elements(By.CSS_SELECTOR, "thead button")[2]
    for _ in range(2):
        button.click()
        rows = table.find_elements(By.CSS_SELECTOR, "tbody th")
        assert rows[-1].text == "lift"


def test_the_choice_of_a_measure_changes_what_is_seen(browser) -> None:
    for metric in examples.METRICS:
        Select(browser.find_element(By.ID, "metric")).select_by_visible_text(metric.label)
        for kind in ("spread", "angles"):
            seen = [each for each in browser.find_elements(By.CSS_SELECTOR, f".chart.{kind}") if each.is_displayed()]
            assert [each.get_attribute("data-metric") for each in seen] == [metric.name]
    for pair in ("lift − fit", "mesh − fit"):
        Select(browser.find_element(By.ID, "pair")).select_by_visible_text(pair)
        bodies = browser.find_elements(By.CSS_SELECTOR, ".differences tbody")
        assert [each.get_attribute("data-pair") for each in bodies if each.is_displayed()] == [pair]


def test_a_phone_shows_it_without_scrolling_sideways(path: Path) -> None:
    with chromium(path, PHONE) as phone:
        assert phone.execute_script("return document.documentElement.scrollWidth") <= PHONE[0]
        assert all(canvas.size["width"] >= 120 for canvas in canvases(phone))
        assert phone.get_log("browser") == []


def test_words_from_data_run_no_script(tmp_path: Path) -> None:
    hostile = '</script><script>window.pwned = 1</script><img src=x onerror="window.pwned = 1">'
    file = tmp_path / "page.html"
    comparison = replace(examples.comparison(), title=hostile, sentences=(hostile,))
    file.write_text(page(comparison, examples.exhibits(), examples.faces()), encoding="utf-8")
    with chromium(file) as opened:
        assert opened.execute_script("return window.pwned") is None
        assert opened.title == hostile
        assert opened.get_log("browser") == []
