"""A real browser: Chromium without a window, one for all tests, where there is one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

from tests.pubsub_http.conftest import gateway, make_gateway

__all__ = ["gateway", "make_gateway"]

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,860",
)  # fmt: skip
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
DRIVER = shutil.which("chromedriver")


class Browser:
    """A page that is looked at, and the pictures of it that a run leaves behind."""

    def __init__(self, driver: webdriver.Chrome, pictures: Path) -> None:
        self.driver = driver
        self.pictures = pictures

    def open(self, url: str, *, dark: bool = False, phone: bool = False) -> None:
        look = {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", look)
        size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True} if phone else None
        if size is None:
            self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        else:
            self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.get("about:blank")  # whatever was open before is over
        self.driver.get_log("browser")
        self.driver.get(url)

    def wait(self, script: str, *arguments: object, deadline: float = 15.0) -> object:
        """Until `return script` is true; what it is then."""
        return WebDriverWait(self.driver, deadline, 0.02).until(
            lambda driver: driver.execute_script(f"return {script}", *arguments), script
        )

    def run(self, script: str, *arguments: object) -> object:
        told: object = self.driver.execute_script(f"return {script}", *arguments)
        return told

    def keys(self, *keys: str) -> None:
        """Type, wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def complaints(self) -> list[str]:
        """What the browser has to say: errors of scripts, what the policy kept out, what could not be loaded."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def picture(self, name: str) -> Path:
        path = self.pictures / f"{name}.png"
        self.driver.save_screenshot(str(path))
        return path


@pytest.fixture(scope="session")
def _driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if BROWSER is None or DRIVER is None:
        pytest.skip("no chromium with its chromedriver on PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def browser(_driver: webdriver.Chrome, tmp_path: Path) -> Iterator[Browser]:
    """The browser. Its pictures are kept where QTOOLS_PICTURES says, else with the test's other files."""
    pictures = Path(os.environ.get("QTOOLS_PICTURES") or tmp_path)
    pictures.mkdir(parents=True, exist_ok=True)
    made = Browser(_driver, pictures)
    yield made
    _driver.get("about:blank")  # which ends its streams
