"""Draw docs/images/demo-live.png and demo-video.png: `siamcal demo` with a rendered person.

Needs Debian's chromium and chromium-driver.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from browser import chromium, demo, write_camera  # noqa: E402
from rendered import RenderedPerson  # noqa: E402
from test_demo_page import press, reading, text, until, widened  # noqa: E402
from videos import write_video  # noqa: E402

IMAGES = ROOT / "docs" / "images"


def acting(frames: int = 30) -> list[np.ndarray]:
    """A smile that comes, with the brows raised towards its end."""
    person = RenderedPerson(2, size=480)
    pictures = []
    for share in np.linspace(0, 1, frames):
        smile = np.sin(np.pi / 2 * min(share * 1.5, 1))
        brows = np.sin(np.pi / 2 * max((share - 0.4) / 0.6, 0))
        actions = {6: 2.5 * smile, 12: 4 * smile, 25: 2.5 * smile, 1: 3 * brows, 2: 3 * brows}
        pictures.append(widened(person(actions, yaw=4 * np.sin(5 * share))))
    return pictures


def save(driver: object, name: str) -> None:
    """The page's visible part, with few colours: a small file."""
    path = IMAGES / name
    driver.save_screenshot(str(path))
    Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path)
    print(path)


def main() -> None:
    """Drive the page once through both tabs."""
    pictures = acting()
    folder = Path(tempfile.mkdtemp())
    still = [pictures[0]]
    there = [pictures[n // 2] for n in range(2 * len(pictures))]
    write_camera(folder / "camera.mjpeg", still * 120 + there + [pictures[-1]] * 120)
    write_video(folder / "interview.mp4", still * 15 + pictures + pictures[::-1] + still * 10)
    with demo() as page, chromium(folder / "camera.mjpeg", folder, (1280, 1130)) as driver:
        driver.get(page)
        press(driver, "#camera button", "Access Webcam")
        press(driver, "#camera button", "Record")
        until(driver, lambda: "Good as the neutral" in text(driver, "checks"))
        press(driver, "#take")
        until(driver, lambda: (reading(driver, 12) or 0) > 3 and reading(driver, 1) > 1)
        time.sleep(0.5)
        save(driver, "demo-live.png")
        press(driver, "button[role=tab]", "Video")
        driver.find_element("css selector", "#video input").send_keys(str(folder / "interview.mp4"))
        until(driver, lambda: "interview" in text(driver, "video"))
        press(driver, "#read")
        until(driver, lambda: "frames," in text(driver, "results"))
        length = "return document.querySelector('#overlay video').duration"
        until(driver, lambda: driver.execute_script(length))
        driver.execute_script("document.querySelector('#overlay video').currentTime = 1.76")
        time.sleep(2)
        save(driver, "demo-video.png")


if __name__ == "__main__":
    main()
