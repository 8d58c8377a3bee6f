"""What a confined process can no longer do: each attempt is made in a child, which reports what came of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ATTEMPTS = {
    "read a file of the owner": "open(secret).read()",
    "write outside": "open(outside, 'w')",
    "remove outside": "os.unlink(secret)",
    "rename outside": "os.rename(secret, outside)",
    "make a folder outside": "os.mkdir(outside)",
    "list a folder outside": "os.listdir(os.path.dirname(secret))",
    "truncate outside": "os.truncate(secret, 0)",
    "link out": "os.link(secret, 'linked')",
    "the environment of its parent": "open(f'/proc/{parent}/environ').read()",
    "a socket": "socket.socket()",
    "a socket of the system": "socket.socket(socket.AF_UNIX)",
    "a datagram": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "start a program": "subprocess.run(['/bin/sh', '-c', 'true'])",
    "signal its parent": "os.kill(parent, 0)",
    "write more than it may": "open('large', 'wb').write(bytes(2**21))",
}
PERMITTED = {
    "write into the scratch folder": "open('found', 'w').write('x')",
    "threads": "__import__('threading').Thread(target=print).start()",
    "random numbers": "os.urandom(8)",
    "modules that were not loaded yet": "__import__('decimal').Decimal(1)",
}
CHILD = """
import json, os, signal, socket, subprocess, sys
from pathlib import Path
from gkd_core.system.confined import confine
secret, outside, parent, attempts = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
lacking, found = confine(Path.cwd(), [], 60, 2**20), {}
for name, code in attempts.items():
    try:
        eval(code)
        found[name] = "done"
    except OSError as error:
        found[name] = type(error).__name__
sys.stderr.write(json.dumps([lacking, found]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are Linux's")
def test_what_is_given_up_is_gone_and_the_rest_works(tmp_path: Path) -> None:
    scratch, secret, outside = tmp_path / "scratch", tmp_path / "secret", tmp_path / "outside"
    scratch.mkdir()
    secret.write_text("canary")
    arguments = [str(secret), str(outside), str(os.getpid()), json.dumps(ATTEMPTS | PERMITTED)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHILD, *arguments], cwd=scratch, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lacking, found = json.loads(done.stderr)
    if lacking:
        pytest.skip(f"this system cannot withhold {lacking}")
    assert {name for name in ATTEMPTS if found[name] == "done"} == set()
    assert {name: found[name] for name in PERMITTED} == dict.fromkeys(PERMITTED, "done")
    assert secret.read_text() == "canary" and not outside.exists()
