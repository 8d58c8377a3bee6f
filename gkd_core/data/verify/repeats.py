"""The same image in two places: twice in a split, with two labels, or on both sides of a line that must not be crossed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

from gkd_core.data.catalog.load import Catalog
from gkd_core.data.verify.findings import Finding
from gkd_core.data.verify.items import Facts
from gkd_core.data.verify.kinds import Kind


def repeated_images(catalog: Catalog, facts: Sequence[Facts]) -> Iterator[Finding]:
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
                yield Finding(learnt.item.domain, Kind.LEAK, learnt.item.image, _also(target))
            else:
                yield Finding(one, Kind.SHARED, first.item.image, _also(second))


def _within(domain: str, same: Sequence[Facts]) -> Iterator[Finding]:
    first = same[0]
    for other in same[1:]:
        yield Finding(domain, Kind.DUPLICATE, other.item.image, f"same pixels as {first.item.image.name}")
    labels = {fact.label_digest: fact for fact in reversed(same) if fact.label_digest is not None}
    for other in list(labels.values())[:-1]:
        detail = f"differs from that of {first.item.image.name}, though the images are the same"
        yield Finding(domain, Kind.CONFLICTING_LABELS, other.item.label or other.item.image, detail)


def _also(fact: Facts) -> str:
    return f"also in {fact.item.domain} as {fact.item.image.name}"
