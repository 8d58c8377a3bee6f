"""A slow and lossy cable between two ports, where the kernel has no netem.

python -m tests.integration.bad_link PORT PORT SECONDS SHARE
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

ATTACH = 0x400454CA  # TUNSETIFF
FRAMES = 0x0002 | 0x1000  # IFF_TAP | IFF_NO_PI
LONGEST_FRAME = 1 << 16


def main(ports: tuple[str, str], delay: float, loss: float) -> None:
    """Hand frames on, in both directions, until we are ended."""
    chance = random.Random(0)
    one, other = (_open(port) for port in ports)
    across = {one: other, other: one}
    waiting: deque[tuple[float, int, bytes]] = deque()  # in the order in which they are due, as all wait equally long
    while True:
        wait = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for port in select.select([one, other], [], [], wait)[0]:
            frame = os.read(port, LONGEST_FRAME)
            if chance.random() >= loss:
                waiting.append((time.monotonic() + delay, across[port], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, port, frame = waiting.popleft()
            os.write(port, frame)


def _open(name: str) -> int:
    port = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(port, ATTACH, struct.pack("16sH", name.encode(), FRAMES))
    return port


if __name__ == "__main__":
    main((sys.argv[1], sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
