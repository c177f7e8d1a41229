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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

IMAGES = Path(__file__).resolve().parent.parent / "docs/images"
FLAGS = (
    "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
    "disable-component-update", "disable-sync", "hide-scrollbars",
)  # fmt: skip
SIZE = (1280, 800)
PATIENCE_SECONDS = 240


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
    from src.config import Tracking
    from src.recorded import find_sweep, open_store

    store = open_store(Tracking(uri, "compression"))
    sweep = find_sweep(store, wanted)
    runs = [row["run_id"] for row in sweep.measured]
    experiment = store.experiment_id
    IMAGES.mkdir(parents=True, exist_ok=True)
    with ui(uri) as address, tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as driver:
        children = quote(f"tags.sweep = '{sweep.run.run_id}' and tags.kind = 'variant'")
        compared = f"runs={quote(json.dumps(runs))}&experiments={quote(json.dumps([experiment]))}"
        pages = {
            "runs": (f"experiments/{experiment}/runs?searchFilter={children}", "p2-fiq"),
            "charts": (f"experiments/{experiment}/runs?searchFilter={children}&compareRunsMode=CHART", "gzip_bytes"),
            "description": (f"experiments/{experiment}/runs/{sweep.run.run_id}", "Description"),
            "report": (f"experiments/{experiment}/runs/{sweep.run.run_id}/artifacts/report.html", "report.html"),
            "parallel-coordinates": (f"compare-runs?{compared}", "Parallel Coordinates"),
        }
        for name, (page, text) in pages.items():
            driver.get(f"{address}/#/{page}")
            driver.refresh()
            shot(driver, name, until=lambda d, text=text: text in d.find_element(By.TAG_NAME, "body").text)
        for name, tab in (("scatter-plot", "Scatter Plot"), ("box-plot", "Box Plot")):
            driver.find_element(By.XPATH, f"//*[@role='tab'][contains(., '{tab}')]").click()
            shot(driver, name, until=lambda d: d.find_elements(By.CSS_SELECTOR, ".js-plotly-plot"))


def shot(driver: webdriver.Chrome, name: str, until: Callable[[webdriver.Chrome], object]) -> None:
    WebDriverWait(driver, PATIENCE_SECONDS).until(until)
    time.sleep(6)  # plots are drawn after their data has come
    picture = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
    file = IMAGES / f"{name}.png"
    picture.quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file}: {file.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(*sys.argv[1:3])
