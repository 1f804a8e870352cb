"""A headless Chromium with a camera that shows a clip, for the page's tests and pictures."""

import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1  # of linux/sockios.h and linux/if.h
PACKAGES = {"chromium": "chromium", "chromedriver": "chromium-driver"}


def missing_browser():
    """Install Debian's Chromium where it is missing; why there is none, "" where there is one."""
    missing = [package for name, package in PACKAGES.items() if shutil.which(name) is None]
    if missing and shutil.which("apt-get") and os.geteuid() == 0:
        quiet = {"capture_output": True, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
        subprocess.run(["apt-get", "update", "-qq"], **quiet)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(command, timeout=600, **quiet)
    absent = [package for name, package in PACKAGES.items() if shutil.which(name) is None]
    return f"apt-get install {' '.join(absent)}: not here, and not to be had" if absent else ""


def loopback_up():
    """Switch the loopback on in a network namespace that was just made."""
    with socket.socket() as some:
        request = struct.pack("16sH14s", b"lo", IFF_UP, b"")
        fcntl.ioctl(some, SIOCSIFFLAGS, request)


def write_camera(path, frames):
    """What Chromium's fake camera shows, over and over, 30 frames a second: RGB frames as MJPEG."""
    with av.open(str(path), "w", format="mjpeg") as container:
        stream = container.add_stream("mjpeg", rate=30, options={"qmin": "2", "qmax": "3"})
        stream.pix_fmt = "yuvj420p"
        for index, frame in enumerate(frames):
            if not index:
                stream.height, stream.width = frame.shape[:2]
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


@contextmanager
def demo(*arguments, **environment):
    """`siamcal demo` on a free port; its address."""
    command = [str(Path(sys.executable).with_name("siamcal")), "demo", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    try:
        yield process.stdout.readline().split()[0]
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def chromium(camera, downloads, size=(1280, 900)):
    """A driver whose page may use the camera, and which notes every request."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for switch in (
        "--headless=new",
        "--no-sandbox",  # root has none
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        # Chromium looks up its maker by itself; the page gets no name resolved either.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        "--force-device-scale-factor=1",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={camera}",
        f"--window-size={size[0]},{size[1]}",
    ):
        options.add_argument(switch)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()


def requests(driver):
    """(address, its host) of all that the page asked for since the last call, sockets too."""
    found = []
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        told = message.get("params", {})
        if message["method"] == "Network.requestWillBeSent":
            found.append(told["request"]["url"])
        elif message["method"] == "Network.webSocketCreated":
            found.append(told["url"])
    return [(url, urlsplit(url).hostname) for url in found if urlsplit(url).hostname]
