"""What a finding is, and how findings are grouped, printed and written down."""

from __future__ import annotations

import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gkd_core.data.verify.kinds import Kind, Severity
from gkd_core.files import atomic_file

EXAMPLES = 3


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, and what exactly. `domain` is a `dataset/split`."""

    domain: str
    kind: Kind
    path: Path
    detail: str


@dataclass(frozen=True)
class Report:
    """All findings of one check. `counts` has, for each domain checked, how many images and labels were read."""

    root: Path
    counts: dict[str, tuple[int, int]]
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """How many findings are of this severity."""
        return sum(finding.kind.severity == severity for finding in self.findings)

    def lines(self) -> Iterator[str]:
        """The report as text: domain by domain, kind by kind, errors first, each with its first examples and what to do."""
        groups: dict[str, dict[Kind, list[Finding]]] = {domain: defaultdict(list) for domain in self.counts}
        for finding in self.findings:
            groups[finding.domain][finding.kind].append(finding)
        for domain, kinds in groups.items():
            yield self._head(domain, kinds)
            for kind in (kind for kind in Kind if kind in kinds):
                yield f"  {kind.severity} {kind.label} ({len(kinds[kind])}): {kind.title}"
                for finding in kinds[kind][:EXAMPLES]:
                    yield f"    {printable(self.place(finding.path))}: {printable(finding.detail)}"
                if len(kinds[kind]) > EXAMPLES:
                    yield f"    and {len(kinds[kind]) - EXAMPLES} more"
                yield f"    to do: {kind.remedy}"
        images = sum(images for images, _ in self.counts.values())
        labels = sum(labels for _, labels in self.counts.values())
        yield f"{_many(len(self.counts), 'domain')}, {_many(images, 'image')}, {_many(labels, 'label')}: {self._verdict()}"

    def write(self, path: Path) -> None:
        """Write all findings as JSON: `{root, domains: {name: {images, labels}}, findings: [{domain, kind, …}]}`."""
        tree = {
            "root": printable(str(self.root)),
            "domains": {domain: {"images": images, "labels": labels} for domain, (images, labels) in self.counts.items()},
            "findings": [
                {
                    "domain": finding.domain,
                    "severity": finding.kind.severity,
                    "kind": finding.kind.label,
                    "path": printable(self.place(finding.path)),
                    "detail": printable(finding.detail),
                }
                for finding in self.findings
            ],
        }
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")

    def place(self, path: Path) -> str:
        """A path below the data root where it lies there, else as it is."""
        return path.relative_to(self.root).as_posix() if path.is_relative_to(self.root) else str(path)

    def _head(self, domain: str, kinds: dict[Kind, list[Finding]]) -> str:
        images, labels = self.counts[domain]
        own = Report(self.root, {}, tuple(finding for group in kinds.values() for finding in group))
        return f"{domain}: {_many(images, 'image')}, {_many(labels, 'label')}, {own._verdict()}"

    def _verdict(self) -> str:
        errors, warnings = self.count("error"), self.count("warning")
        return f"{_many(errors, 'error')}, {_many(warnings, 'warning')}" if errors or warnings else "no finding"


def printable(text: str) -> str:
    r"""`text` on one line of plain UTF-8: control characters and bytes that are no UTF-8 as escapes such as `\n` and `\xff`."""
    return "".join(_escape(char) if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char for char in text)


def _escape(char: str) -> str:
    # Python keeps a byte of a file name that is no UTF-8 as a surrogate from U+DC80 on.
    return f"\\x{ord(char) - 0xDC00:02x}" if 0xDC80 <= ord(char) <= 0xDCFF else char.encode("unicode_escape").decode()


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
