"""A torchvision that imports beside a CPU build of torch: python3 torchvision_wheel.py WHEEL_OF_PYPI FOLDER

PyPI's torchvision for x86-64 is built for CUDA, and ends at import beside a torch without it; the build for the CPU is in
PyTorch's own index only. So where that index cannot be asked, the tests take PyPI's wheel without its compiled operators,
which the project does not use (boxes, decoders of images), and without the registrations that want them. A stand-in for
tests, no product.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from pathlib import Path

LOCAL = "no.operators"
REGISTRATIONS = "torchvision/_meta_registrations.py"
COMPILED = (".so", "torchvision.libs/")


def without_operators(wheel: Path, folder: Path) -> Path:
    """Write the wheel, with a local version that says what it is."""
    name, version, tags = wheel.stem.split("-", 2)
    old, new = f"{name}-{version}", f"{name}-{version}+{LOCAL}"
    target = folder / f"{new}-{tags}.whl"
    record: list[str] = []
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as made:
        for entry in source.namelist():
            if entry.endswith(("/RECORD", "/", COMPILED[0])) or entry.startswith(COMPILED[1]):
                continue
            data = source.read(entry)
            if entry == REGISTRATIONS:
                data = data[: data.index(b"@torch.library.register_fake")]
            if entry == f"{old}.dist-info/METADATA":
                data = data.replace(f"\nVersion: {version}\n".encode(), f"\nVersion: {version}+{LOCAL}\n".encode())
            path = entry.replace(f"{old}.dist-info", f"{new}.dist-info")
            made.writestr(path, data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{path},sha256={digest},{len(data)}")
        made.writestr(f"{new}.dist-info/RECORD", "\n".join([*record, f"{new}.dist-info/RECORD,,", ""]))
    return target


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    print(without_operators(Path(sys.argv[1]), Path(sys.argv[2])))
