"""Pins our own images in a kustomize overlay: python3 infra/images/pin.py OVERLAY NAME=REGISTRY/IMAGE@sha256:… …

Run by build.sh with the digests that the registry answered to the push. Needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FILE = Path("images/kustomization.yaml")
PIN = re.compile(r"(?P<name>gkd-[a-z]+)=(?P<image>[a-z0-9][a-z0-9./:_-]*)@(?P<digest>sha256:[0-9a-f]{64})")
HEADER = """\
# Our own images, by digest. Written by infra/images/build.sh: do not edit.
apiVersion: kustomize.config.k8s.io/v1alpha1
kind: Component
images:
"""


def pinned(arguments: list[str]) -> str:
    """The text of the component that puts these images in place; SystemExit names an argument that is no pin."""
    entries = []
    for argument in sorted(arguments):
        match = PIN.fullmatch(argument)
        if match is None:
            raise SystemExit(f"pin.py: {argument}: expected NAME=REGISTRY/IMAGE@sha256:… with 64 hex digits")
        entries.append("  - name: {name}\n    newName: {image}\n    digest: {digest}\n".format(**match.groupdict()))
    return HEADER + "".join(entries)


def main(overlay: Path, arguments: list[str]) -> None:
    """Write the component below the overlay, in a folder of its own that a fresh clone does not have."""
    target = overlay / FILE
    text = pinned(arguments)
    target.parent.mkdir(exist_ok=True)
    target.write_text(text, encoding="utf-8")
    print(f"{target}: {len(arguments)} images pinned")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), sys.argv[2:])
