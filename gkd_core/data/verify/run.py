"""Datasets read in full, in parallel, and all that was found."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from gkd_core.data.catalog.load import Catalog, Domain
from gkd_core.data.verify.faults import Fault, Kind, Report
from gkd_core.data.verify.items import Facts, check_item, lost_item
from gkd_core.data.verify.layout import Survey, survey
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
    def faults(self) -> list[Fault]:
        """What is wrong with the folders and with single files."""
        return [*self.survey.faults, *(fault for fact in self.facts for fault in fact.faults)]


def verify(domains: Sequence[Domain], root: Path, processes: int, show: ShowProgress) -> Report:
    """Read every image and label of these domains, of one catalog, below `root` and report all that is wrong with them."""
    read = read_domains(domains, root, processes, show)
    faults = [fault for domain in read for fault in domain.faults]
    faults += repeated_images(domains[0].catalog, [fact for domain in read for fact in domain.facts]) if domains else []
    faults += [fault for domain in read for fault in _unseen_classes(domain, root)]
    counts = {domain.survey.domain.reference: _counts(domain.facts) for domain in read}
    return Report(root, counts, tuple(_told_once(faults)))


def read_domains(domains: Sequence[Domain], root: Path, processes: int, show: ShowProgress) -> list[DomainFacts]:
    """What `verify` goes by: each split surveyed, each of its images and labels read in full.

    `show(title, total)` opens a display of progress. Few files are read in this process, as others would start too late to help.
    """
    surveys = [survey(domain, root) for domain in domains]
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


def _unseen_classes(found: DomainFacts, root: Path) -> Iterator[Fault]:
    """Classes that the encoding could give but no label of the split has; nothing where no label could be read."""
    domain, encoding = found.survey.domain, found.survey.encoding
    seen = {train_id for fact in found.facts for train_id in fact.pixels}
    if encoding is None or not seen:
        return
    classes = domain.taxonomy.classes
    unseen = [name for train_id, name in enumerate(classes) if train_id in encoding.ids.values() and train_id not in seen]
    if unseen:
        yield Fault(domain.reference, Kind.UNSEEN_CLASS, domain.entry.dataset_folder(root), ", ".join(unseen))


def _told_once(faults: Iterable[Fault]) -> Iterator[Fault]:
    told = set()
    for fault in faults:
        place = (fault.kind, fault.path)
        if fault.kind in OF_FOLDERS and place in told:
            continue
        told.add(place)
        yield fault


def repeated_images(catalog: Catalog, facts: Sequence[Facts]) -> Iterator[Fault]:
    """Findings about images with equal pixels. A target of a benchmark must share none with a domain that is no target."""
    targets = {reference for benchmark in catalog.benchmarks.values() for reference in benchmark.targets.values()}
    groups: dict[str, dict[str, list[Facts]]] = defaultdict(lambda: defaultdict(list))
    for fact in facts:
        if fact.image_digest is not None:
            groups[fact.image_digest][fact.item.domain].append(fact)
    for group in groups.values():
        for domain, same in group.items():
            yield from _within(domain, same)
        for (one, first), (other, second) in combinations(((domain, same[0]) for domain, same in group.items()), 2):
            if (one in targets) != (other in targets):
                learnt, target = (second, first) if one in targets else (first, second)
                yield Fault(learnt.item.domain, Kind.LEAK, learnt.item.image, _also(target))
            else:
                yield Fault(one, Kind.SHARED, first.item.image, _also(second))


def _within(domain: str, same: Sequence[Facts]) -> Iterator[Fault]:
    first = same[0]
    for other in same[1:]:
        yield Fault(domain, Kind.DUPLICATE, other.item.image, f"same pixels as {first.item.image.name}")
    labels = {fact.label_digest: fact for fact in reversed(same) if fact.label_digest is not None}
    for other in list(labels.values())[:-1]:
        detail = f"differs from that of {first.item.image.name}, though the images are the same"
        yield Fault(domain, Kind.CONFLICTING_LABELS, other.item.label or other.item.image, detail)


def _also(fact: Facts) -> str:
    return f"also in {fact.item.domain} as {fact.item.image.name}"
