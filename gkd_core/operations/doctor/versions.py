"""Installed versions, compared with the required ones."""

from __future__ import annotations

from collections.abc import Iterable

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import Version

from gkd_core.operations.doctor.finding import Finding, error, warning, well
from gkd_core.operations.doctor.machine import Machine

PACKAGE = "gkd"
PYTHON = ">=3.11,<3.15"
PLATFORM = "platform"
INSTALL = "uv pip install --require-hashes -r requirements.txt"
SHOWN = ("torch", "torchvision", "timm", "transformers", "prefect", "mlflow", "dvc", "ray", "fastapi")


def check_python(machine: Machine) -> Iterable[Finding]:
    """The interpreter."""
    if Version(machine.python) in Requirement(f"python{PYTHON}").specifier:
        yield well("Python", machine.python)
    else:
        yield error("Python", f"{machine.python}; needs {PYTHON}", "make the environment with another: make PYTHON=python3.11 …")


def check_packages(machine: Machine) -> Iterable[Finding]:
    """Each package against its declared range: those of the science are required, those of the platform optional."""
    if machine.version_of(PACKAGE) is None:
        yield warning(
            "packages", "gkd itself is not installed, so its ranges are unknown", "uv pip install --no-deps --editable ."
        )
        return
    needed = [Requirement(line) for line in machine.requires(PACKAGE)]
    bad = [finding for item in needed for finding in _judge(item, machine)]
    yield from bad
    if not bad:
        shown = (f"{name} {version}" for name in SHOWN if (version := machine.version_of(name)))
        yield well("packages", f"within their ranges: {', '.join(shown)}")


def _judge(item: Requirement, machine: Machine) -> Iterable[Finding]:
    optional = item.marker is not None and not item.marker.evaluate({"extra": ""})
    if optional and not (item.marker is not None and item.marker.evaluate({"extra": PLATFORM})):
        return
    version = machine.version_of(item.name)
    if version is None:
        report = warning if optional else error
        yield report(item.name, f"not installed; needs {item.specifier or 'any version'}", INSTALL)
    elif not item.specifier.contains(version, prereleases=True):
        yield error(item.name, f"{version}; needs {item.specifier}", INSTALL)


def check_torchvision(machine: Machine) -> Iterable[Finding]:
    """torchvision is built for one torch: another one breaks its operators, and timm with them."""
    torch, torchvision = machine.version_of("torch"), machine.version_of("torchvision")
    if torch is None or torchvision is None:
        return
    pins = [Requirement(line) for line in machine.requires("torchvision")]
    built_for = next((pin.specifier for pin in pins if pin.name == "torch"), None)
    ours, theirs = Version(torch), Version(torchvision)
    builds = {local for local in (ours.local, theirs.local) if local is not None}
    if built_for is not None and not built_for.contains(ours.public, prereleases=True):
        found = f"torchvision {torchvision} is built for torch{built_for}; torch {torch} is installed"
        yield error("torchvision", found, "install the two from one place, at versions that belong together")
    elif len(builds) > 1:
        found = f"torch {torch} and torchvision {torchvision} are of different builds"
        yield error("torchvision", found, "install both from one index: PyPI, or PyTorch's own for one CUDA or CPU")
    else:
        yield well("torchvision", f"{torchvision} fits torch {torch}")


def check_pins(machine: Machine) -> Iterable[Finding]:
    """The versions of requirements.txt: those that the tests were run with."""
    file = machine.project / "requirements.txt"
    if not file.exists():
        return
    differing, count = [], 0
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            pin = Requirement(line.split(" #")[0].rstrip("\\ "))
        except InvalidRequirement:
            continue  # a comment, or an option of pip
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        count += 1
        version = machine.version_of(pin.name)
        if version is None or not pin.specifier.contains(Version(version).public, prereleases=True):
            differing.append(f"{pin.name} {version or 'absent'} ({pin.specifier})")
    if differing:
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        yield warning("requirements.txt", f"differs: {', '.join(differing[:5])}{more}", f"{INSTALL} (or make, which does)")
    else:
        yield well("requirements.txt", f"all {count} packages as pinned")
