"""Datasets read in full, in parallel, and all that was found."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from gkd_core.data.catalog.load import Catalog
from gkd_core.data.verify.findings import Finding, Report
from gkd_core.data.verify.items import Facts, check_item, lost_item
from gkd_core.data.verify.kinds import Kind
from gkd_core.data.verify.layout import Survey, survey
from gkd_core.data.verify.repeats import repeated_images
from gkd_core.data.verify.workers import CHUNK, in_processes

ShowProgress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]

# Of a folder that several splits may share: told once, under the first of them.
OF_FOLDERS = (Kind.STRAY_LABEL, Kind.LEFT_OUT)


@dataclass(frozen=True)
class DomainFacts:
    """A `dataset/split` as it was found: its survey, and the facts about each of its items in their order."""

    survey: Survey
    facts: list[Facts]

    @property
    def findings(self) -> list[Finding]:
        """What is wrong with the folders and with single files."""
        return [*self.survey.findings, *(finding for fact in self.facts for finding in fact.findings)]


def verify(catalog: Catalog, references: Sequence[str], root: Path, processes: int, show: ShowProgress) -> Report:
    """Read every image and label of these `dataset/split`s below `root` and report all that is wrong with them.

    Raises:
        DataError: the catalog has no such dataset or split. Whatever is on disk becomes findings.
    """
    domains = read_domains(catalog, references, root, processes, show)
    findings = [finding for domain in domains for finding in domain.findings]
    findings += repeated_images(catalog, [fact for domain in domains for fact in domain.facts])
    findings += [finding for domain in domains for finding in _unseen_classes(catalog, domain, root)]
    counts = {domain.survey.domain: _counts(domain.facts) for domain in domains}
    return Report(root, counts, tuple(_told_once(findings)))


def read_domains(
    catalog: Catalog, references: Sequence[str], root: Path, processes: int, show: ShowProgress
) -> list[DomainFacts]:
    """What `verify` goes by: each split surveyed, each of its images and labels read in full.

    `show(title, total)` opens a display of progress. Few files are read in this process, as others would start too late to help.

    Raises:
        DataError: the catalog has no such dataset or split.
    """
    surveys = [survey(catalog, reference, root) for reference in dict.fromkeys(references)]
    items = [item for found in surveys for item in found.items]
    facts: list[Facts] = [Facts(item) for item in items]
    with show("read images and labels", len(items)) as advance:
        work = in_processes(check_item, items, min(processes, max(1, math.ceil(len(items) / CHUNK))), lost_item)
        for done, (index, fact) in enumerate(work, start=1):
            fact.item = items[index]  # the one that is here already, rather than the copy that came back
            facts[index] = fact
            advance(done)
    rest = iter(facts)
    return [DomainFacts(found, [next(rest) for _ in found.items]) for found in surveys]


def usable_processes() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _counts(facts: Sequence[Facts]) -> tuple[int, int]:
    return len(facts), sum(fact.item.label is not None for fact in facts)


def _unseen_classes(catalog: Catalog, domain: DomainFacts, root: Path) -> Iterator[Finding]:
    """Classes that the encoding could give but no label of the split has; nothing where no label could be read."""
    encoding, seen = domain.survey.encoding, {train_id for fact in domain.facts for train_id in fact.pixels}
    if encoding is None or not seen:
        return
    entry, _ = catalog.domain(domain.survey.domain)
    classes = catalog.taxonomy_of(entry).classes
    unseen = [name for train_id, name in enumerate(classes) if train_id in encoding.ids.values() and train_id not in seen]
    if unseen:
        yield Finding(domain.survey.domain, Kind.UNSEEN_CLASS, entry.dataset_folder(root), ", ".join(unseen))


def _told_once(findings: Iterable[Finding]) -> Iterator[Finding]:
    told = set()
    for finding in findings:
        place = (finding.kind, finding.path)
        if finding.kind in OF_FOLDERS and place in told:
            continue
        told.add(place)
        yield finding
