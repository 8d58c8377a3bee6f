"""The same cluster on hosts with addresses of their own: what the network between them does, and how a run ends then."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from shutil import rmtree

import pytest

from flows.automations import SILENT
from gkd_core.records import sha256_of
from gkd_core.settings import Settings, dump_settings
from gkd_core.system.child_process import child_process
from tests.integration.cluster.stack import DISTILLING, EVERY, UPDATES, End, Stack
from tests.integration.hosts import DATABASE, HEAD, MLFLOW, NODES, PREFECT, STORE, WORKER, Host, Hosts
from tests.integration.kills.orchestration import PATIENCE, alive, trained, wait_for
from tests.integration.namespaces import Network, network_or_skip

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("ray")]

BY_ITSELF = "from ray.util import get_node_ip_address; print(get_node_ip_address())"
GKD = [sys.executable, "-c", "from gkd_core.cli import main; main()"]
STAGE = "distill-proxy"
DELAY, LOSS = 0.05, 0.02
BOUND = 600.0  # seconds in which a stage must have ended, whatever happens


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    names = (DATABASE, STORE, PREFECT, MLFLOW, WORKER, HEAD, *NODES)
    with network_or_skip(names, tmp_path_factory.mktemp("network")) as network:
        yield network


@pytest.fixture(scope="module")
def second_address(network: Network) -> str:
    """Of the head, in a network that leads out but to none of the nodes, as a published port has it."""
    return network.add_second_card(HEAD)


@pytest.fixture(scope="module")
def places(network: Network, second_address: str) -> Hosts:
    return network.hosts


class ByHand:
    """A project at the worker's host where stages are run by their commands: what a flow adds to them costs minutes."""

    def __init__(self, folder: Path, host: Host, settings: Settings, environment: Mapping[str, str]) -> None:
        self.folder, self.log = folder, folder / "log"
        self._host, self._settings, self._environment = host, settings, {**environment, "PWD": str(folder)}

    def stage(self, name: str, max_failures: int) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """A stage that runs from its beginning, while the block lasts."""
        for made in (f"artifacts/{name}", "artifacts/runs"):
            rmtree(self.folder / made, ignore_errors=True)
        compute = self._settings.compute.model_copy(update={"max_failures": max_failures})
        tree = dump_settings(self._settings.model_copy(update={"compute": compute}))
        (self.folder / "params.yaml").write_text(tree, encoding="utf-8")
        command = [*self._host.prefix, *GKD, "run", name]
        return child_process(command, cwd=self.folder, env=self._environment, log=self.log)

    def wait_for_the_middle(self) -> None:
        wait_for(lambda: len(self.trained()) > 2 * EVERY[STAGE], "the stage to be in the middle", PATIENCE)
        assert self.trained()[-1] < UPDATES[STAGE]

    def trained(self) -> list[int]:
        return trained(self.folder, STAGE)

    def digest(self) -> str:
        return sha256_of(self.folder / "artifacts" / STAGE / "encoder.safetensors")


@pytest.fixture(scope="module")
def by_hand(network: Network, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> ByHand:
    project = ByHand(tmp_path_factory.mktemp("by-hand"), network.hosts[WORKER], stack.settings, stack.platform.environment)
    with project.stage("prepare-data", 0) as done:
        assert done.wait(PATIENCE) == 0, project.log.read_text()
    return project


def test_a_head_of_two_networks_is_found_where_its_nodes_are(
    network: Network, second_address: str, stack: Stack, undisturbed: End
) -> None:
    """By itself it would take the address that they cannot reach."""
    command = [*network.hosts[HEAD].prefix, sys.executable, "-c", BY_ITSELF]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == second_address
    nodes = json.loads(stack.hosts.ask("/nodes?view=summary", stack.hosts.token))["data"]["summary"]
    assert {node["ip"] for node in nodes} == {network.hosts[name].address for name in (HEAD, *NODES)}
    assert [job["status"] for job in stack.jobs() if job["type"] == "SUBMISSION"] == ["SUCCEEDED"] * len(DISTILLING)


def test_nodes_are_cut_off_from_the_store_for_half_a_minute(
    network: Network, stack: Stack, by_hand: ByHand, undisturbed: End
) -> None:
    stack.forget_all("store-cut")
    with by_hand.stage(STAGE, stack.settings.compute.max_failures) as stage:
        by_hand.wait_for_the_middle()
        with network.partition(NODES, [STORE]):
            time.sleep(30)
            assert by_hand.trained()[-1] < UPDATES[STAGE]
        assert stage.wait(PATIENCE) == 0, by_hand.log.read_text()
    assert by_hand.digest() == undisturbed[0][f"{STAGE}/encoder"]
    assert set(by_hand.trained()) == set(range(1, UPDATES[STAGE] + 1))


def test_nodes_are_cut_off_from_the_store_for_good(network: Network, stack: Stack, by_hand: ByHand) -> None:
    """The stage ends with 75, by which the flow tries it again later, and says what failed."""
    stack.forget_all("store-lost")
    with by_hand.stage(STAGE, 0) as stage:
        by_hand.wait_for_the_middle()
        with network.partition(NODES, [STORE]):
            assert stage.wait(BOUND) == 75, by_hand.log.read_text()
    last = by_hand.log.read_text().splitlines()[-1]
    assert re.search(f"{STAGE}: .*(bucket of checkpoints at gkd-data/.* fails|gave up after 1 groups of workers): .", last)
    assert not (by_hand.folder / "artifacts" / STAGE).exists()


def test_one_node_is_behind_a_slow_and_lossy_link(network: Network, stack: Stack, by_hand: ByHand, undisturbed: End) -> None:
    stack.forget_all("slow")
    with network.bad_link(NODES[0], DELAY, LOSS), by_hand.stage(STAGE, 0) as stage:
        assert stage.wait(BOUND) == 0, by_hand.log.read_text()
    assert by_hand.digest() == undisturbed[0][f"{STAGE}/encoder"]
    assert by_hand.trained() == list(range(1, UPDATES[STAGE] + 1))


def test_the_flow_is_cut_off_from_prefect_for_half_a_minute(network: Network, stack: Stack, undisturbed: End) -> None:
    run = stack.disturbed("prefect-cut")
    with network.partition([WORKER], [PREFECT]):
        time.sleep(30)
    stack.assert_the_same_end(run, undisturbed, attempts=0)


def test_the_flow_is_cut_off_from_prefect_until_it_counts_as_dead(network: Network, stack: Stack, undisturbed: End) -> None:
    """The server says so, and the flow, which has been at work all the time, ends when it hears that; it can be run again."""
    run = stack.disturbed("prefect-lost")
    flow = stack.platform.flow_process()
    work = [flow, *flow.children(recursive=True)]
    with network.partition([WORKER], [PREFECT]):
        stack.platform.wait(run, "CRASHED")
        assert flow.is_running()
    wait_for(lambda: not alive(work), "the flow to end itself", PATIENCE)
    state = stack.platform.call(f"flow_runs/{run}")["state"]
    assert state["type"] == "CRASHED" and SILENT in state["message"], state
    assert "counts this flow run as dead" in (stack.platform.project / "worker.log").read_text()
    stack.assert_mlflow_knows_all_ends()
    stack.platform.wait(stack.platform.run(), "COMPLETED")
    assert stack.end() == undisturbed
