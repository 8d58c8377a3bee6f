"""A machine on which all is well, to be made worse by each test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gkd_core.operations.doctor.machine import Machine
from gkd_core.operations.doctor.web import Reply
from gkd_core.settings import Settings

GIB = 1024**3
VERSIONS = {"gkd": "0.1.0", "torch": "2.13.0+cpu", "torchvision": "0.28.0+cpu", "prefect": "3.8.8", "timm": "1.0.31"}
REQUIRES = {
    "gkd": [
        "torch<2.15,>=2.11",
        "torchvision",
        "timm>=1.0.31",
        'prefect>=3.8.8; extra == "platform"',
        'pytest; extra == "dev"',
    ],
    "torchvision": ["numpy", "torch==2.13.0"],
}


class Web:
    """Services by address; what is asked is kept, with its headers."""

    def __init__(self, replies: Mapping[str, Reply] | None = None) -> None:
        self.replies = dict(replies or {})
        self.asked: list[tuple[str, Mapping[str, str]]] = []

    def __call__(self, url: str, headers: Mapping[str, str]) -> Reply:
        self.asked.append((url, headers))
        for start, reply in self.replies.items():
            if url.startswith(start):
                return reply
        return Reply(None, "Connection refused", {})


@pytest.fixture
def good(tmp_path: Path) -> Machine:
    return Machine(
        project=tmp_path,
        settings=Settings(),
        home=tmp_path / "home",
        environment={},
        version_of=VERSIONS.get,
        requires=lambda name: REQUIRES[name],
        get=Web(),
        is_free=lambda port: True,
        listens=lambda port: ["127.0.0.1"],
        disk_free=lambda folder: 100 * GIB,
        python="3.11.7",
        cpus=8,
        memory=32 * GIB,
        memory_free=30 * GIB,
        shared_memory=16 * GIB,
        open_files=65536,
        now=4e9,
    )
