"""Looks the pinned versions up for known vulnerabilities by pip-audit: in the advisory database, or in a folder of its files.

pip-audit asks a service for each package. Without network that service is this process, on loopback: it answers from a folder
of OSV files, one advisory each, as the OSV project hands out all of PyPI's in one archive.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ECOSYSTEM = "PyPI"
LARGEST_QUERY = 2**16  # bytes
Advisory = dict[str, Any]


# What pip-audit, requests and urllib3 say of a service that does not answer.
UNREACHABLE = re.compile(r"Could not connect|ConnectionError|Max retries|NameResolution|ProxyError|Connection refused|timed out")


class AuditError(Exception):
    """The audit cannot be done; one line."""


class Advisories:
    """The advisories of a folder, by the package that they are about."""

    def __init__(self, folder: Path) -> None:
        self._of: dict[str, list[Advisory]] = defaultdict(list)
        files = sorted(folder.rglob("*.json"))
        if not files:
            raise AuditError(f"{folder}: no *.json in it; expected a folder of OSV advisories, as of the unpacked archive")
        self.count = 0
        for file in files:
            try:
                advisory = json.loads(file.read_bytes())
                names = {canonicalize_name(part["package"]["name"]) for part in _affected(advisory)}
                advisory["id"].encode()
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                # Left out, it would be one vulnerability less.
                reason = f"{type(error).__name__}: {error}"
                raise AuditError(f"{file}: no OSV advisory ({reason}); download the folder again") from None
            self.count += bool(names)
            for name in names:
                self._of[name].append(advisory)
        if not self.count:
            raise AuditError(f"{folder}: {len(files)} files, and none is about a package of {ECOSYSTEM}")

    def about(self, name: str, version: str) -> list[Advisory]:
        """Those that say that this version is affected, as the OSV service answers: with the name as pip-audit asked."""
        wanted, found = canonicalize_name(name), []
        for advisory in self._of.get(wanted, ()):
            parts = [part for part in _affected(advisory) if canonicalize_name(part["package"]["name"]) == wanted]
            if any(_is_affected(part, version) for part in parts):
                renamed = [{**part, "package": {**part["package"], "name": name}} for part in parts]
                found.append({**advisory, "affected": renamed})
        return found


def _affected(advisory: Advisory) -> list[Advisory]:
    return [part for part in advisory.get("affected") or () if part.get("package", {}).get("ecosystem") == ECOSYSTEM]


def _is_affected(part: Advisory, version: str) -> bool:
    """Whether a version is listed, or lies in a range. What cannot be compared counts as affected: better one too many."""
    given = Version(version)
    listed, ranges = part.get("versions") or [], [each for each in part.get("ranges") or () if each.get("type") == "ECOSYSTEM"]
    if not listed and not ranges:
        return True
    try:
        return any(Version(each) == given for each in listed if _is_version(each)) or any(
            _is_inside(each["events"], given) for each in ranges
        )
    except (InvalidVersion, LookupError):
        return True


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False  # of releases before there were rules for versions: none that is pinned can be one of them
    return True


def _is_inside(events: Sequence[dict[str, str]], given: Version) -> bool:
    """Whether a version lies in a range of OSV's: the last event at or below it decides."""
    marks = []
    for event in events:
        for kind, text in event.items():
            if kind == "introduced":
                marks.append((Version("0.dev0") if text == "0" else Version(text), 1, True))
            elif kind == "fixed":
                marks.append((Version(text), 0, False))
            elif kind == "last_affected" and given > Version(text):
                marks.append((Version(text), 2, False))
    inside = False
    for mark, _, begins in sorted(marks, key=lambda each: each[:2]):
        if given >= mark:
            inside = begins
    return inside


@contextmanager
def served(advisories: Advisories) -> Iterator[str]:
    """Answer OSV's `/v1/query` on loopback while the block lasts; gives its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server looks for
            size = int(self.headers.get("Content-Length") or 0)
            try:
                query = json.loads(self.rfile.read(min(size, LARGEST_QUERY)))
                found = advisories.about(query["package"]["name"], query["version"])
            except (ValueError, LookupError, TypeError) as error:
                self.send_error(400, str(error)[:100])
                return
            body = json.dumps({"vulns": found} if found else {}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a line for each of some hundred packages."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def audit(requirements: Sequence[str], advisories: Path | None) -> int:
    """Run pip-audit; its exit status, which is 0 where every package was looked up and none has a known vulnerability.

    Raises:
        AuditError: the folder cannot be used, or there is none and the service cannot be reached.
    """
    command = [sys.executable, "-m", "pip_audit", "--strict", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    command += [word for file in requirements for word in ("--requirement", file)]
    if advisories is None:
        command += ["--cache-dir", str(Path(sys.prefix) / "cache")]  # not in a home, which may not be there
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode and UNREACHABLE.search(done.stderr):
            raise AuditError("the advisory service cannot be reached; without network give ADVISORIES=folder (OSV files)")
        sys.stderr.write(done.stderr)
        return done.returncode
    known = Advisories(advisories)
    with served(known) as address, tempfile.TemporaryDirectory() as cache:
        print(f"{known.count} advisories of {advisories}", flush=True)
        # Loopback by no proxy, and nothing that an earlier audit has kept.
        environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        command += ["--vulnerability-service", "osv", "--osv-url", address, "--cache-dir", cache]
        return subprocess.run(command, env=environment, check=False).returncode


def main() -> int:
    """Audit the files that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--advisories", type=Path, help="folder of OSV advisories (*.json), in place of the network")
    parser.add_argument("requirements", nargs="+", help="files of pinned versions")
    arguments = parser.parse_args()
    try:
        return audit(arguments.requirements, arguments.advisories)
    except AuditError as error:
        print(f"no audit: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
