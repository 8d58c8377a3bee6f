"""The list of checks. Those that need a package of the platform live with its adapter, and are loaded when they are run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from gkd_core.operations.doctor import credentials, disk, hardware, network, versions
from gkd_core.operations.doctor.finding import Check, Finding
from gkd_core.operations.doctor.machine import Machine


def _ray(machine: Machine) -> Iterable[Finding]:
    from gkd_core.operations.doctor.ray import check_ray

    return check_ray(machine)


def _postgres(machine: Machine) -> Iterable[Finding]:
    from gkd_core.operations.doctor.postgres import check_postgres

    return check_postgres(machine)


def _storage(machine: Machine) -> Iterable[Finding]:
    from gkd_core.operations.doctor.storage import check_storage

    return check_storage(machine)


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "Python": versions.check_python,
        "packages": versions.check_packages,
        "torchvision": versions.check_torchvision,
        "requirements.txt": versions.check_pins,
        "ports": network.check_ports,
        "Prefect server": network.check_prefect,
        "MLflow store": network.check_mlflow,
        "access": network.check_doors,
        "platform's keys": network.check_keys,
        "PostgreSQL": _postgres,
        "Ray": _ray,
        "storage": _storage,
        "names and passwords": credentials.check_pairs,
        "files of secrets": credentials.check_files,
        "Ray token": credentials.check_ray_token,
        "disk": disk.check_room,
        "links to the cache": disk.check_links,
        "CPUs": hardware.check_cpus,
        "memory": hardware.check_memory,
        "GPUs": hardware.check_gpus,
        "/dev/shm": hardware.check_shared_memory,
        "open files": hardware.check_open_files,
        "clock": hardware.check_clock,
    }
)
