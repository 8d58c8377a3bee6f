"""Joins the Ray cluster that a stage works on, or starts one on loopback, with a token of its own, that ends with the stage."""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import ray
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # compiled

from gkd_core.cluster.own_cluster import LOOPBACK, OBJECT_STORE_BYTES, own_access, own_folder, plain_python
from gkd_core.errors import PlatformError, TransientError
from gkd_core.messages import one_line


@contextmanager
def connected(workers: int) -> Iterator[None]:
    """Join the cluster that RAY_ADDRESS names, or start one here that ends with the stage.

    Raises:
        TransientError: it cannot be reached or started.
        PlatformError: Ray would have listened on a network card.
    """
    if ray.is_initialized():
        yield
        return
    for name in ("ray", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with ExitStack() as own:
        try:
            cpus = max(workers, os.cpu_count() or 1)
            own.enter_context(_joined() if os.environ.get("RAY_ADDRESS") else own_cluster(cpus))
        except PlatformError:
            raise
        except Exception as error:  # Ray raises nothing narrower where its node is not up in time
            raise TransientError(
                f"Ray cannot be reached or started ({one_line(error)}); unset RAY_ADDRESS or set compute.workers=0"
            ) from None
        yield


@contextmanager
def _joined() -> Iterator[None]:
    ray_constants.ENABLE_RAY_CLUSTER = False  # else an address on loopback would be looked for on a network card
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def own_cluster(cpus: int) -> Iterator[None]:
    """A cluster that only this process and its children can reach, while the block lasts."""
    with own_folder() as folder, _variables({**own_access(), **LOOPBACK}), _executable(plain_python(folder.path)):
        # Ray has read its variable when it was first imported, maybe long before us.
        ray_constants.ENABLE_RAY_CLUSTER = False
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=str(folder.ray),
            )
            _refuse_network()
            yield
        finally:
            ray.shutdown()


def _refuse_network() -> None:
    address = ray.util.get_node_ip_address()
    if not ipaddress.ip_address(address).is_loopback:
        raise PlatformError(f"Ray listens at {address} instead of on loopback: is this a version of Ray that we do not know?")


@contextmanager
def _executable(path: str) -> Iterator[None]:
    """Have Ray start its processes with another path of this Python."""
    before, sys.executable = sys.executable, path
    try:
        yield
    finally:
        sys.executable = before


@contextmanager
def _variables(values: Mapping[str, str]) -> Iterator[None]:
    """Have variables for us and for the processes that Ray starts, which Ray keeps in its own memory once they were read."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        _read_again()
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        _read_again()


def _read_again() -> None:
    # In this order: a thread of Ray's that still runs must not look for a token that is no longer there.
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
