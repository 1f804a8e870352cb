"""`siamcal demo` in a headless Chromium, whose camera shows a rendered person."""

import os
import re
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from browser import chromium, demo, missing_browser, requests, write_camera
from packets import alone_in_a_network, packets_tried, say
from rendered import RenderedPerson
from videos import write_video

from siamcal import Calibrator
from siamcal.inference.overlay import own_overlay

pytest.importorskip("gradio", reason="pip install 'siamcal[demo]'")
webdriver = pytest.importorskip("selenium.webdriver", reason="pip install selenium")

PATIENCE = 60  # seconds
SMILE = {6: 3, 12: 4, 25: 3}


def widened(frame):
    """640 x 480, as cameras give it."""
    return np.pad(frame, ((0, 0), (80, 80), (0, 0)), mode="edge")


@pytest.fixture(scope="module")
def person():
    rendered = RenderedPerson(2, size=480)
    return widened(rendered()), widened(rendered(SMILE))


@pytest.fixture(scope="module")
def folder(person, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    neutral, smile = person
    write_camera(folder / "camera.mjpeg", [neutral] * 120 + [smile] * 120)
    write_video(folder / "clip.mp4", [neutral] * 5 + [smile] * 3)
    (folder / "text.mp4").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def page(folder):
    """The page in the browser, and the hosts that it asked."""
    if reason := missing_browser():
        pytest.skip(reason)
    with demo(TMPDIR=str(folder)) as address, chromium(folder / "camera.mjpeg", folder) as driver:
        driver.get(address)
        yield driver


def until(driver, true):
    """The first true answer; what the page shows where there is none."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if answer := true():
                return answer
        except webdriver.remote.webdriver.WebDriverException:
            pass  # not there yet, or just replaced
        time.sleep(0.1)
    pytest.fail(driver.find_element("tag name", "body").text)


def press(driver, where, words=""):
    """Press a button by its place and words."""

    def pressed():
        buttons = driver.find_elements("css selector", where)
        button = next(b for b in buttons if words in b.text and b.is_displayed())
        button.click()
        return True

    until(driver, lambda: any(words in b.text for b in driver.find_elements("css selector", where)))
    until(driver, pressed)


def text(driver, name):
    return driver.find_element("id", name).text


def reading(driver, au):
    """The calibrated number behind an AU, the first of two; None while there is none."""
    rows = driver.find_elements("css selector", "#bars tr")
    row = next(row for row in rows if row.text.startswith(f"AU{au} "))
    number = row.find_element("css selector", "td.number").text
    return None if number == "–" else float(number)


def test_a_camera_is_guided_and_read(page, person):
    body = page.find_element("tag name", "body")
    until(page, lambda: "Nothing leaves this machine" in body.text)
    until(page, lambda: len(page.find_elements("css selector", "#bars tr")) == 13)
    press(page, "#camera button", "Access Webcam")
    press(page, "#camera button", "Record")
    until(page, lambda: "the face isn't at rest: a smile" in text(page, "checks"))
    assert reading(page, 12) is None
    until(page, lambda: "Good as the neutral face" in text(page, "checks"))
    press(page, "#take")
    until(page, lambda: "Readings are relative to this face" in text(page, "said"))
    assert "isn't at rest" not in text(page, "said")
    seen = []
    end = time.monotonic() + 12  # a whole round of the camera's clip
    while time.monotonic() < end:
        seen.append(until(page, lambda: (reading(page, 12), reading(page, 1))))
        time.sleep(0.2)
    lip_corners = np.array([one[0] for one in seen if one[0] is not None])
    with Calibrator.from_pretrained() as calibrator:
        calibrator.calibrate(person[0])
        smile = min(calibrator.read(person[1])["AU12"], 5)
    assert smile > 2
    assert abs(lip_corners.max() - smile) < 0.6
    assert lip_corners.min() < 0.3


def test_a_video_gives_what_the_command_gives(page, folder):
    press(page, "button[role=tab]", "Video")
    choose = page.find_element("css selector", "#video input[type=file]")
    choose.send_keys(str(folder / "text.mp4"))
    until(page, lambda: "text" in text(page, "video"))
    press(page, "#read")
    body = page.find_element("tag name", "body")
    until(page, lambda: "\ntext.mp4 is neither an image nor a video" in body.text)
    press(page, "#video button[aria-label^=Clear], #video button[aria-label^=Remove]")
    choose = until(page, lambda: page.find_element("css selector", "#video input[type=file]"))
    choose.send_keys(str(folder / "clip.mp4"))
    until(page, lambda: "clip" in text(page, "video"))
    press(page, "#read")
    until(page, lambda: "8 frames, 8 with values" in text(page, "results"))
    links = until(page, lambda: files(page))
    got = {}
    for link in links:
        with urllib.request.urlopen(link) as answer:
            got[link.rsplit("/")[-1]] = answer.read()
    assert set(got) == {"clip.csv", "clip.json", "clip.png", "clip.mp4"}
    (folder / "got.mp4").write_bytes(got["clip.mp4"])
    assert own_overlay(folder / "got.mp4")
    with Calibrator.from_pretrained() as calibrator:
        calibrator.calibrate(folder / "clip.mp4")
        expected = calibrator.read_video(folder / "clip.mp4")
    (folder / "got.csv").write_bytes(got["clip.csv"])
    np.testing.assert_array_equal(
        np.genfromtxt(folder / "got.csv", delimiter=",", names=True)["AU12_r"], expected["AU12_r"]
    )
    length = "return document.querySelector('#overlay video').duration"
    assert until(page, lambda: page.execute_script(length)) == pytest.approx(8 / 25, abs=0.05)


def files(driver):
    """The addresses of the files to download."""
    found = driver.find_elements("css selector", "#files a")
    return {link.get_attribute("href") for link in found if link.get_attribute("href")}


def test_this_machine_alone_was_asked(page):
    asked = requests(page)
    assert len(asked) > 20
    assert {host for _, host in asked} == {"127.0.0.1"}
    refused = [entry for entry in page.get_log("browser") if "Security Policy" in entry["message"]]
    assert refused == []  # nor was anything else tried


def test_what_the_page_kept_is_deleted(folder):
    with demo(TMPDIR=str(folder)):
        kept = [f for f in folder.iterdir() if f.name.startswith("siamcal-demo-")]
        assert kept
        assert all(os.stat(f).st_mode & 0o077 == 0 for f in kept)
        before = set(kept)
    left = {f for f in folder.iterdir() if f.name.startswith("siamcal-demo-")}
    assert len(before - left) == 1


@pytest.mark.skipif(not alone_in_a_network(), reason="no network namespaces here")
def test_page_and_browser_send_nothing_out(tmp_path):
    """The tests above, in a network that ends at this machine: no packet looks for a way out.

    Counted over IPv4, where names are looked up: Chromium itself looks for a route over IPv6,
    without sending anything, by connecting a UDP socket.
    """
    if reason := missing_browser():
        pytest.skip(reason)
    tests = [f"{__file__}::{name}" for name in globals() if re.match("test_a_(camera|video)", name)]
    inside = (
        "import browser, pytest, sys\nbrowser.loopback_up()\nsys.exit(pytest.main(sys.argv[1:]))"
    )
    outside = (
        "import contextlib, socket\n"
        "with contextlib.suppress(OSError):\n"
        "    socket.socket(type=socket.SOCK_DGRAM).sendto(b'', ('192.0.2.1', 9))"
    )
    tried = {}
    for name, arguments in {"all": (inside, *tests), "control": (outside,)}.items():
        command = ["env", f"PYTHONPATH={Path(__file__).parent}", sys.executable, "-c", *arguments]
        tried[name] = packets_tried(command, tmp_path, counters=("Ip.OutNoRoutes",))
        if name == "all":
            assert f"{len(tests)} passed" in (tmp_path / "out").read_text()
    say(f"packets tried: {tried}")
    assert len(tests) == 2
    assert tried["control"] > 0  # so the count sees what is sent
    assert tried["all"] == 0
