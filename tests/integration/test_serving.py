"""`mlflow models serve` of a champion: the label maps of a `Segmentor` over HTTP, and one line for what is no image."""

from __future__ import annotations

import base64
import io
import json
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import requests
import torch
from PIL import Image

from flows.local_platform.services import Ports, client_environment, services
from flows.local_platform.start import prepare_keys
from gkd_core.predict.student import Segmentor
from gkd_core.registry.champions import Champions
from gkd_core.registry.logged_model import log_segmentor
from gkd_core.registry.serving_check import check_served
from gkd_core.registry.versions import Registry
from gkd_core.settings import EncoderSettings, Settings, settings_from_tree
from gkd_core.stages import Recipe
from gkd_core.stages.bundle import describe
from gkd_core.storage.mlflow_store import STORE
from gkd_core.system.child_process import child_process
from gkd_core.system.loopback import free_port
from gkd_core.tracking.flow_runs import Tracking
from tests.predict.conftest import noise
from tests.registry.test_versions import EXAMPLE, NAME, Logged, student, write_checkpoint

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # as the tests themselves


class Served(NamedTuple):
    """A champion that is served, by its alias and by its run, and the same student in this process."""

    alias: str
    run: str
    student: Segmentor
    champions: Champions


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, vit_settings: EncoderSettings) -> Iterator[Served]:
    project = tmp_path_factory.mktemp("project")
    keys = prepare_keys(project)
    ports = Ports(free_port(), free_port(), free_port())
    (project / STORE).mkdir(parents=True)
    mlflow = services(project, ports, None, keys)[1]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in client_environment(ports, keys).items():
            patch.setenv(name, value)
        with child_process(mlflow.command, cwd=mlflow.cwd, env=mlflow.environment, log=project / "mlflow.log"):
            wait_until_well(mlflow.check, project / "mlflow.log")
            folder = write_checkpoint(project / "student", vit_settings, 0)
            recipe = Recipe.of(settings_from_tree({"evaluate": {"window": [32, 32], "stride": [21, 21]}}))
            bundle = describe(folder, recipe, project)
            tracking = Tracking(Settings(), project)
            with tracking.run("learn-task-toy", {}) as run_id:
                model_id = log_segmentor(tracking.client, tracking.experiment, run_id, folder, bundle, EXAMPLE)
            champions = Champions(Registry(tracking.client, tracking.address))
            champions.registry.add(student(Logged(model_id, run_id, bundle.model.sha256), vit_settings, 50, 50))
            champions.promote(NAME, "1", "test", "first")
            here = Segmentor.of_segmentor(bundle, folder, torch.device("cpu"))
            alias, run = free_port(), free_port()
            with (
                child_process(serve(f"models:/{NAME}@champion", alias), cwd=project, env=ONE_THREAD, log=project / "alias.log"),
                child_process(serve(f"runs:/{run_id}/student-toy", run), cwd=project, env=ONE_THREAD, log=project / "run.log"),
            ):
                for port, name in ((alias, "alias"), (run, "run")):
                    wait_until_well(f"http://127.0.0.1:{port}/ping", project / f"{name}.log")
                pages = (f"http://127.0.0.1:{port}/invocations" for port in (alias, run))
                yield Served(*pages, here, champions)
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{alias}/ping", timeout=10)


def serve(model: str, port: int) -> tuple[str, ...]:
    return ("mlflow", "models", "serve", "-m", model, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port))


def wait_until_well(page: str, log: Path) -> None:
    ends = time.monotonic() + 180
    while time.monotonic() < ends:
        try:
            if requests.get(page, timeout=10).status_code == 200:
                return
        except requests.ConnectionError:
            time.sleep(0.3)
    pytest.fail(log.read_text())


def in_base64(image: Image.Image, form: str = "PNG") -> str:
    stream = io.BytesIO()
    image.save(stream, form)
    return base64.b64encode(stream.getvalue()).decode()


def bomb() -> str:
    """A PNG of 30 000 × 30 000 pixels by its header, and of a few bytes."""
    content = b"\x89PNG\r\n\x1a\n"
    parts = ((b"IHDR", struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 9)), (b"IEND", b""))
    for kind, body in parts:
        content += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return base64.b64encode(content).decode()


def label_map(answer: dict[str, str]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["label_map"]))))


@pytest.mark.parametrize("page", ["alias", "run"])
def test_an_image_of_any_size_gets_the_label_map_of_a_segmentor(served: Served, page: str) -> None:
    image = noise(75, 130)
    expected = served.student.predict(image)
    rows = [{"image": in_base64(Image.fromarray(image))}, {"pixels": image.tolist()}]
    given = requests.post(getattr(served, page), json={"inputs": rows}, timeout=120)
    assert given.status_code == 200, given.text
    for answer in given.json()["predictions"]:
        assert np.array_equal(label_map(answer), expected.labels)
        assert (answer["height"], answer["width"], tuple(answer["classes"])) == (75, 130, served.student.classes)


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": {"image": "IMAGE"}},
        {"inputs": {"image": ["IMAGE"]}},
        {"instances": [{"image": "IMAGE"}]},
        {"dataframe_records": [{"image": "IMAGE"}]},
        {"dataframe_split": {"columns": ["image"], "data": [["IMAGE"]]}},
    ],
)
def test_every_form_that_mlflow_takes_is_answered(served: Served, body: dict[str, object]) -> None:
    image = Image.fromarray(noise(20, 33))
    expected = served.student.predict(Image.open(io.BytesIO(base64.b64decode(in_base64(image, "JPEG"))))).labels
    text = json.dumps(body).replace("IMAGE", in_base64(image, "JPEG"))
    given = requests.post(served.alias, data=text, headers={"Content-Type": "application/json"}, timeout=120)
    assert given.status_code == 200, given.text
    (answer,) = given.json()["predictions"]
    assert np.array_equal(label_map(answer), expected)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image": "no base64!"}, "image 1: 'no base64!' is no base64"),
        ({"image": base64.b64encode(b"no image" * 100_000).decode()}, "image 1: no PNG, JPEG"),
        ({"image": in_base64(Image.fromarray(noise(40, 40)))[:200]}, "image 1: cannot be decoded"),
        ({"image": bomb()}, "image 1: Image size (900000000 pixels) exceeds limit"),
        ({"pixels": [[1, 2], [3, 4]]}, "image 1: pixels: of shape (2, 2)"),
        ({"pixels": [[[0.5, 0.5, 0.5]]]}, "image 1: pixels: of kind float64"),
        ({"pixels": [[[0, 0, 256]]]}, "image 1: pixels: values from 0 to 256"),
        ({"pixels": []}, "image 1: pixels: of shape (0,)"),
        ({"image": "", "pixels": [[[0, 0, 0]]]}, "image 1: has both image and pixels"),
        (None, "the request has no image"),
    ],
)
def test_what_is_no_image_gets_one_line(served: Served, row: dict[str, object] | None, words: str) -> None:
    given = requests.post(served.alias, json={"inputs": [] if row is None else [row]}, timeout=120)
    message = given.json()["message"]
    assert given.status_code == 400
    assert message.startswith(words), message[:300]
    assert "\n" not in message and len(message) < 400
    assert "Traceback" not in given.text and "stack_trace" not in given.json()


def test_a_model_that_was_served_still_passes_its_check(served: Served, tmp_path: Path) -> None:
    """MLflow writes beside a model that it fetches by its alias, where the store is a folder."""
    assert check_served(served.champions.registry, NAME, "champion", tmp_path) == len(EXAMPLE)
