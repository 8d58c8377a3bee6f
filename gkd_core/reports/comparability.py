"""Reasons why scores cannot be compared without a warning: other protocols, other data, other domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gkd_core.records import FieldImages, Score, ScoreProtocol
from gkd_core.reports.rows import IN_DOMAIN, Cell

Facts = tuple[str, Sequence[Score], Sequence[Mapping[str, str]]]  # a row's label, its scores, the data digests of its runs


def cautions(rows: Sequence[Facts]) -> list[str]:
    """One sentence a reason; none where everything was measured alike, on domains that no student saw."""
    return [*_protocols(rows), *_data(rows), *_domains(rows), *seen_in_the_field([(label, scores) for label, scores, _ in rows])]


def seen_in_the_field(rows: Sequence[tuple[str, Sequence[Score]]]) -> list[str]:
    """Of rows whose students saw images of the field, that these are no unseen domain: a sentence for each set of images."""
    found: dict[FieldImages, dict[str, None]] = {}
    for label, scores in rows:
        for score in scores:
            if score.field is not None:
                found.setdefault(score.field, {})[label] = None
    return [
        f"{', '.join(labels)}: {field.images} images from the field (sha256 {field.sha256[:10]}) joined the unlabelled proxy of "
        "stage 1a. A domain that they show is no unseen domain."
        for field, labels in found.items()
    ]


def protocol_words(protocol: ScoreProtocol) -> str:
    """A protocol in words; sizes are height × width in pixels."""
    bound = "" if protocol.max_size is None else f", at most {_size(protocol.max_size)}"
    scaled = f"images at {protocol.scale:g} of their size ({protocol.scaling})"
    scale = ("images as they are" if protocol.scale == 1 else scaled) + bound
    labels = "labels resized with them" if protocol.labels_resized else "labels at their own size"
    views = f"scales {', '.join(f'{value:g}' for value in protocol.scales)}" + (", mirrored too" if protocol.flip else "")
    single = protocol.scales == (1.0,) and not protocol.flip
    return (
        f"{scale}, {labels}; window {_size(protocol.window)}, stride {_size(protocol.stride)}; "
        f"{'one view' if single else f'mean of {protocol.averaged} over {views}'}; {protocol.precision}; "
        f"{protocol.classes} classes; {protocol.selection}"
    )


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]}"


def _protocols(rows: Sequence[Facts]) -> list[str]:
    """Cells that were not measured alike; cells with the same difference share a sentence."""
    found: dict[str, list[Cell]] = {}
    for cell in dict.fromkeys((score.benchmark, score.domain) for _, scores, _ in rows for score in scores):
        measured = [(label, score) for label, scores, _ in rows for score in scores if (score.benchmark, score.domain) == cell]
        # Datasets and numbers of images are told where it is they that differ.
        several_sets = len({score.dataset for _, score in measured}) > 1
        several_counts = len({score.images for _, score in measured}) > 1
        protocols: dict[str, list[str]] = {}
        for label, score in measured:
            facts = [score.dataset] * several_sets + [f"{score.images} images"] * several_counts
            protocols.setdefault("; ".join([*facts, protocol_words(score.protocol)]), []).append(label)
        if len(protocols) > 1:
            told = (f"{', '.join(dict.fromkeys(labels))}: {words}" for words, labels in protocols.items())
            found.setdefault(" | ".join(told), []).append(cell)
    return [f"Not measured alike on {_names(cells)}, so not comparable there. {told}." for told, cells in found.items()]


def _data(rows: Sequence[Facts]) -> list[str]:
    """Datasets whose content differs between rows, or within one."""
    digests: dict[str, dict[str, list[str]]] = {}
    for label, _, runs in rows:
        for data in runs:
            for name, digest in data.items():
                digests.setdefault(name, {}).setdefault(digest, []).append(label)
    return [
        f"Not the same data under the name {name}: "
        + "; ".join(f"{digest[:10]} ({', '.join(dict.fromkeys(labels))})" for digest, labels in found.items())
        + "."
        for name, found in digests.items()
        if len(found) > 1
    ]


def _domains(rows: Sequence[Facts]) -> list[str]:
    """Rows, or seeds of one row, whose means are over other domains."""
    targets: dict[frozenset[Cell], list[str]] = {}
    for label, scores, _ in rows:
        for seed in dict.fromkeys(score.seed for score in scores):
            cells = frozenset((score.benchmark, score.domain) for score in scores if score.seed == seed)
            targets.setdefault(frozenset(cell for cell in cells if cell[1] != IN_DOMAIN), []).append(label)
    if len(targets) < 2:
        return []
    told = (f"{len(cells)} for {', '.join(dict.fromkeys(labels))}" for cells, labels in targets.items())
    return [f"The means are not over the same target domains ({'; '.join(told)}): compare domain by domain."]


def _names(cells: Sequence[Cell]) -> str:
    return ", ".join(f"{benchmark} {domain}" for benchmark, domain in cells)
