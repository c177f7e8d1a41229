"""The pictures in docs/: the MLflow UI on a real store, in headless Chromium.

`python scripts/screenshots.py [URI [SWEEP]]` takes the latest sweep of sqlite:///mlruns/mlflow.db if told no other,
and writes to docs/images/.
"""

import io
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

IMAGES = Path(__file__).resolve().parent.parent / "docs/images"
FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "hide-scrollbars",
)  # fmt: skip
SIZE = (1280, 940)
PATIENCE_SECONDS = 240
# Where artifacts lie on the machine that takes the pictures is of no use to others.
HIDE_PATH = """
const said = (e) => [...e.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.includes("file:/"));
for (const e of document.querySelectorAll("body *")) if (said(e)) e.remove();
"""


@contextmanager
def browser(profile: Path) -> Iterator[webdriver.Chrome]:
    """Headless Chromium with a profile of its own, and with its console kept."""
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"user-data-dir={profile}", f"window-size={SIZE[0]},{SIZE[1]}"):
        options.add_argument(f"--{flag}")
    # Found here, Selenium need not look for them, which it would do on the network.
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver"))) as driver:
        driver.set_page_load_timeout(PATIENCE_SECONDS)
        yield driver


@contextmanager
def ui(uri: str) -> Iterator[str]:
    """The MLflow UI on the store `uri`: its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            try:
                urlopen(f"{address}/health", timeout=5)
                break
            except OSError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def main(uri: str = "sqlite:///mlruns/mlflow.db", wanted: str = "latest") -> None:
    sys.path.insert(0, str(IMAGES.parent.parent))
    from src.results.recorded import find_sweep, open_store
    from src.settings.sections import Tracking

    store = open_store(Tracking(uri, "compression"))
    sweep = find_sweep(store, wanted)
    runs = [result.run_id for result in sweep.measured]
    experiment = store.experiment_id
    IMAGES.mkdir(parents=True, exist_ok=True)
    with ui(uri) as address, tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as driver:
        children = quote(f"tags.sweep = '{sweep.run.run_id}' and tags.kind = 'variant'")
        compared = f"runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}"
        runs_of_sweep = f"experiments/{experiment}/runs?searchFilter={children}"
        driver.implicitly_wait(60)
        driver.get(f"{address}/#/{runs_of_sweep}")
        # What the UI of MLflow 3 opens by itself on a first visit, and the view that is not for training.
        driver.find_element(By.CSS_SELECTOR, "[data-component-id='mlflow.assistant.chat_panel.close']").click()
        driver.find_element(By.XPATH, "//*[text()='Model training']").click()
        pages = {
            "runs": (runs_of_sweep, f"//a[contains(., '{sweep.run.name[:14]}')]"),
            "charts": (f"{runs_of_sweep}&compareRunsMode=CHART", "//*[contains(text(), 'Model metrics')]"),
            "description": (f"experiments/{experiment}/runs/{sweep.run.run_id}", "//td[contains(., 'p2-fiq')]"),
            "report": (f"experiments/{experiment}/runs/{sweep.run.run_id}/artifacts/report.html", "//iframe"),
            "parallel-coordinates": (f"compare-runs?{compared}", "//*[contains(text(), 'Parallel Coordinates')]"),
        }
        for name, (page, shows) in pages.items():
            driver.get(f"{address}/#/{page}")
            driver.find_element(By.XPATH, shows)
            if name == "runs":  # the variants, which are folded up below their sweep
                driver.find_element(By.CSS_SELECTOR, ".ag-row button").click()
            shot(driver, name)


def shot(driver: webdriver.Chrome, name: str) -> None:
    time.sleep(8)  # plots are drawn after their data has come
    driver.execute_script("document.querySelectorAll('[data-component-id*=assistant]').forEach((e) => e.remove())")
    driver.execute_script(HIDE_PATH)
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    file = IMAGES / f"{name}.png"
    picture.quantize(192, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(*sys.argv[1:3])
