"""Pictures of both UIs for the docs, by headless Chromium: `python docs/screenshots.py`, with the platform up and a finished run.

Needs Debian's packages chromium and chromium-driver.
"""

import json
import shutil
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.support.ui import WebDriverWait

from gkd_core.operations.doctor.web import basic
from gkd_core.system.platform_state import FOLDER
from gkd_core.system.server_keys import USER, read_keys

COLUMNS = [
    *("metrics.`miou/mean_targets`", "metrics.`miou/worst_domain`", "metrics.`miou/source_gap`"),
    *("metrics.`cost/seconds`", "metrics.`cost/parameters_millions`"),
]
# What a click on the columns and on the assistant's cross leaves in the browser.
CHOSEN = """
const key = `MLflowLocalStorage-1.1-ExperimentPage-["${arguments[0]}"]-ReactComponentState`;
const state = JSON.parse(localStorage.getItem(key) || "{}");
localStorage.setItem(key, JSON.stringify({...state, selectedColumns: arguments[1], orderByKey: arguments[1][0]}));
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
PICTURES = Path(__file__).parent / "pictures"
SETTLE_SECONDS = 3.0  # charts draw themselves after their text is there
WAIT_SECONDS = 60.0
CHROMIUM = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


@dataclass(frozen=True)
class Page:
    """A page to picture: the file's name, the address, a text that is there once it is drawn, and the window in pixels."""

    name: str
    url: str
    text: str
    size: tuple[int, int] = (1440, 900)


def main(
    prefect: Annotated[str, typer.Option(help="Address of the Prefect server.")] = "http://127.0.0.1:4200",
    mlflow: Annotated[str, typer.Option(help="Address of the MLflow server.")] = "http://127.0.0.1:5000",
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = PICTURES,
    only: Annotated[str, typer.Option(help="Picture only pages whose name has this in it.")] = "",
) -> None:
    """Picture the pages that the docs show, as they are now."""
    output.mkdir(parents=True, exist_ok=True)
    keys = read_keys(Path.cwd() / FOLDER) or sys.exit("no keys of a platform here: make up, in the project's folder")
    users = {prefect: keys.prefect, mlflow: f"{USER}:{keys.mlflow}"}
    sign_in(users)
    experiment = _ask(f"{mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=gkd")["experiment"]["experiment_id"]
    pages = [*prefect_pages(prefect), *mlflow_pages(mlflow, experiment)]
    with browser() as driver:
        # Prefect's pages keep the key that one signs in with; MLflow's leave that to the browser.
        driver.get(prefect)
        driver.execute_script("localStorage.setItem('prefect-password', btoa(arguments[0]))", keys.prefect)
        driver.execute_cdp_cmd("Network.enable", {})
        use_key(driver, mlflow, users)
        driver.get(f"{mlflow}/#/experiments/{experiment}/runs")
        time.sleep(SETTLE_SECONDS)
        driver.execute_script(CHOSEN, experiment, COLUMNS)
        for page in pages:
            if only in page.name:
                use_key(driver, page.url, users)
                take(driver, page, output)


def sign_in(users: Mapping[str, str]) -> None:
    """Have this process sign in to each server, by its address, as `user:key`."""
    known = urllib.request.HTTPPasswordMgrWithPriorAuth()
    for server, pair in users.items():
        user, _, key = pair.partition(":")
        known.add_password(None, server, user, key, is_authenticated=True)
    urllib.request.install_opener(urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(known)))


def use_key(driver: webdriver.Chrome, url: str, users: Mapping[str, str]) -> None:
    """Have the browser sign in to the server of an address."""
    pair = next(pair for server, pair in users.items() if url.startswith(server))
    driver.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": basic(pair)})


def prefect_pages(server: str) -> list[Page]:
    """The list of runs, the newest finished run of the whole pipeline, and the form to start one."""
    deployment = _ask(f"{server}/api/deployments/name/gkd/full-pipeline")
    query = {
        "deployments": {"id": {"any_": [deployment["id"]]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        "sort": "START_TIME_DESC",
        "limit": 1,
    }
    found = _ask(f"{server}/api/flow_runs/filter", query)
    pages = [
        Page("prefect-runs", f"{server}/runs", "gkd"),
        Page("prefect-form", f"{server}/deployments/deployment/{deployment['id']}/run", "Parameters", (1440, 1400)),
    ]
    if found:
        pages.append(Page("prefect-run", f"{server}/runs/flow-run/{found[0]['id']}", found[0]["name"], (1440, 1000)))
    return pages


def mlflow_pages(server: str, experiment: str) -> list[Page]:
    """The runs with what is asked of them, the newest finished ones side by side, and the first registered model."""
    query = {
        "experiment_ids": [experiment],
        "filter": "tags.kind = 'pipeline' and attributes.status = 'FINISHED'",
        "max_results": 4,
    }
    runs = [run["info"]["run_id"] for run in _ask(f"{server}/api/2.0/mlflow/runs/search", query).get("runs", [])]
    chosen = urllib.parse.urlencode({"runs": json.dumps(runs), "experiments": json.dumps([experiment])})
    listed = urllib.parse.urlencode({"searchFilter": "tags.kind = 'pipeline'"}, quote_via=urllib.parse.quote)
    pages = [
        Page("mlflow-runs", f"{server}/#/experiments/{experiment}/runs?{listed}", "Run Name"),
        Page("mlflow-compare", f"{server}/#/compare-runs?{chosen}", "Metrics", (1440, 1600)),
        Page("mlflow-run", f"{server}/#/experiments/{experiment}/runs/{runs[0]}", "Description", (1440, 1300)),
    ]
    models = _ask(f"{server}/api/2.0/mlflow/registered-models/search").get("registered_models", [])
    pages += [Page("mlflow-model", f"{server}/#/models/{model['name']}", model["name"]) for model in models[:1]]
    return pages


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """A headless Chromium that speaks to nobody but the pages asked for."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or sys.exit("no chromium: apt-get install chromium chromium-driver")
    for argument in CHROMIUM:
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        yield driver
    finally:
        driver.quit()


def take(driver: webdriver.Chrome, page: Page, folder: Path) -> None:
    """Write `<name>.png`; a page without its text is pictured as it is, and said."""
    driver.set_window_size(*page.size)
    driver.get("about:blank")  # else another address of the same page does not load it anew
    driver.get(page.url)
    try:
        WebDriverWait(driver, WAIT_SECONDS).until(lambda found: page.text in found.page_source)
    except TimeoutException:
        print(f"{page.name}: '{page.text}' did not appear", file=sys.stderr)
    time.sleep(SETTLE_SECONDS)
    path = folder / f"{page.name}.png"
    driver.save_screenshot(str(path))
    print(path)


def _ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


if __name__ == "__main__":
    typer.run(main)
