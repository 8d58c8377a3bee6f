"""Stage `bundle`: a source's student to take away; and what a bundle says of any segmentor: its record, and what the recipe
and its catalog know beside."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from gkd_core.data.catalog.entries import Protocol
from gkd_core.data.catalog.load import Benchmark, Domain
from gkd_core.data.catalog.taxonomy import LabelEncoding
from gkd_core.data.files.reading import resolve_encoding
from gkd_core.errors import DataError, GkdError
from gkd_core.methods import is_teacher
from gkd_core.models.flops import empty_encoder, student_size
from gkd_core.models.licences import UNKNOWN_LICENCE, weights_licence
from gkd_core.paths import SCORES
from gkd_core.predict.answer import Colors
from gkd_core.predict.bundle import described, write_bundle
from gkd_core.predict.latency import Latency, check_latency
from gkd_core.predict.manifest import LARGEST_COLOR, LARGEST_ID, Bundle, Licences, OwnIds, View
from gkd_core.records import MANIFEST, Score, ScoreTable, SegmentorCheckpoint, StudentSize, kind_of
from gkd_core.settings import EncoderSettings, Settings
from gkd_core.stages.facts import BUNDLE
from gkd_core.stages.origin import data_root, label_names_file
from gkd_core.stages.recipe import Recipe
from gkd_core.stages.work import Context


def bundle(context: Context) -> None:
    """Write a source's student, with its scores, as a bundle: the same settings and inputs give the same bytes."""
    folder = context.workspace / context.run.input("segmentor")
    scores = read_scores(context.workspace / context.run.input("scores"))
    described = describe(folder, context.recipe, context.workspace, scores, size=size_of(folder, context.settings))
    write_bundle(described, folder / described.model.weights, context.output)


def describe(
    folder: Path,
    recipe: Recipe,
    workspace: Path,
    scores: Sequence[Score] = (),
    latency: Latency | None = None,
    size: StudentSize | None = None,
) -> Bundle:
    """A segmentor's folder as the manifest of a bundle: how it is seen by the settings, what its classes are by the catalog.

    No weights are read: `write_bundle` holds them against the record.

    Args:
        workspace: what the settings' paths are relative to.
        scores, latency, size: what was measured and counted of it.

    Raises:
        GkdError: the scores or the latency are another student's.
    """
    record = SegmentorCheckpoint.read(folder / MANIFEST)
    check_scores(record, scores)
    if latency is not None:
        check_latency(latency, record.sha256)
    with torch.device("meta"):
        mean, std = empty_encoder(record.encoder).normalisation
    settings = recipe.settings
    return Bundle(
        version=version("gkd"),
        model=record.model_copy(update={"encoder": _without_paths(record.encoder)}),
        colors=_colors(record, recipe),
        mean=mean,
        std=std,
        view=View.of(settings.evaluate, _protocol(record, recipe), settings.compute.threads),
        ids=_own_ids(record, recipe, workspace),
        licences=_licences(record, recipe),
        scores=tuple(scores),
        size=size,
        latency=latency,
        files=(described(folder / record.weights),),
    )


def read_scores(path: Path) -> tuple[Score, ...]:
    """The scores of a file, or of the folder that `evaluate` or `gkd measure` wrote."""
    return ScoreTable.read(path / SCORES if path.is_dir() else path).scores


def weights_beside(report: Path, scores: Sequence[Score]) -> frozenset[str]:
    """SHA-256 of the students whose scores a report has, by the bundles that their stage wrote beside it.

    A bundle that has other scores is of another run, and does not count.

    Raises:
        GkdError: the manifest of a bundle is damaged.
    """
    known = [score.model_dump() for score in scores]
    folders = sorted(manifest.parent for manifest in (report.parent / BUNDLE.folder.name).glob(f"*/{MANIFEST}"))
    bundles = [Bundle.read(folder / MANIFEST) for folder in folders if kind_of(folder) == "bundle"]
    own = [bundle for bundle in bundles if bundle.scores and all(score.model_dump() in known for score in bundle.scores)]
    return frozenset(bundle.model.sha256 for bundle in own)


def size_of(folder: Path, settings: Settings) -> StudentSize:
    """Parameters and FLOPs of a segmentor's folder on one evaluation window, and of its teacher where the settings have it.

    Raises:
        DataError: it cannot see the window.
    """
    record = SegmentorCheckpoint.read(folder / MANIFEST)
    teacher = None if is_teacher(record.method) else _teacher_of(record, settings)
    return student_size(record, folder / record.weights, settings.evaluate.window, teacher)


def check_scores(record: SegmentorCheckpoint, scores: Sequence[Score]) -> None:
    """Raise `GkdError` where a score is another student's, by all that a score says of its student."""
    own = (record.source, record.method, record.encoder.arch, record.seed, record.label_fraction)
    for score in scores:
        stated = (score.source, score.method, score.student, score.seed, score.label_fraction)
        if stated != own:
            raise GkdError(f"scores of {_words(stated)}; this student is {_words(own)}: give its own")


def _words(facts: tuple[str, str, str, int, float]) -> str:
    source, method, student, seed, fraction = facts
    return f"{student} from {source} by {method}, seed {seed}" + (f", {fraction:g} of the labels" if fraction != 1 else "")


def _without_paths(encoder: EncoderSettings) -> EncoderSettings:
    """The encoder without folders of the machine that it was made on: of a file of weights, its name."""
    file = encoder.weights_file
    return encoder if file is None else encoder.model_copy(update={"weights": file.name})


def _colors(record: SegmentorCheckpoint, recipe: Recipe) -> Colors:
    """The taxonomy's colours; where the catalog does not know it, colours that differ."""
    known = recipe.catalog.taxonomies.get(record.taxonomy)
    if known is not None and tuple(known.classes) == record.classes:
        return known.colors
    return tuple(_spread(index) for index in range(len(record.classes)))


def _spread(index: int) -> tuple[int, int, int]:
    """A colour for a number; each is far from those just before it."""
    hue, value = index * 0.618034 % 1, 0.9 - 0.25 * (index % 3)
    red, green, blue = (round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, 0.75, value))
    return red, green, blue


def _benchmarks(record: SegmentorCheckpoint, recipe: Recipe) -> Iterator[Benchmark]:
    """The benchmarks whose source the student learnt from: the recipe's own first."""
    for benchmark in (*recipe.benchmarks, *recipe.catalog.benchmarks.values()):
        if benchmark.source.name == record.source:
            yield benchmark


def _protocol(record: SegmentorCheckpoint, recipe: Recipe) -> Protocol:
    """How the source's validation images are shown."""
    found = next(_benchmarks(record, recipe), None)
    return Protocol() if found is None else recipe.catalog.domain(found.validation).entry.protocol


def _own_ids(record: SegmentorCheckpoint, recipe: Recipe, workspace: Path) -> OwnIds | None:
    """What the label files of the source, of its first part where there are several, call the classes; None where unknown."""
    found = next(_benchmarks(record, recipe), None)
    if found is None:
        return None
    domain = recipe.catalog.domain(found.source.references[0])
    if domain.taxonomy.classes != record.classes:
        return None
    encoding = _encoding(domain, recipe, workspace)
    return None if encoding is None else inverted(domain.entry.name, encoding, len(record.classes))


def _encoding(domain: Domain, recipe: Recipe, workspace: Path) -> LabelEncoding | None:
    settings, by_names = recipe.settings, domain.entry.label_names is not None
    if by_names and label_names_file(settings, domain) is None:
        return None
    root = workspace / data_root(settings) if by_names else workspace
    try:
        return resolve_encoding(domain.catalog, domain.entry, root)
    except DataError:  # names whose numbers stand in a file of the dataset, which is not here
        return None


def inverted(dataset: str, encoding: LabelEncoding, classes: int) -> OwnIds:
    """The file id of each train id, the lowest where there are several; null where there is none that a picture can hold."""
    largest = LARGEST_COLOR if encoding.form == "color" else LARGEST_ID
    lowest: dict[int, int] = {}
    for file_id in sorted(encoding.ids, reverse=True):
        if 0 <= file_id <= largest:
            lowest[encoding.ids[file_id]] = file_id
    form = "color" if encoding.form == "color" else "index"
    return OwnIds(dataset=dataset, form=form, values=tuple(lowest.get(index) for index in range(classes)))


def _teacher_of(record: SegmentorCheckpoint, settings: Settings) -> EncoderSettings | None:
    """The settings' teacher, where it is the one that the student was taught by."""
    return settings.teacher if record.teacher == settings.teacher.arch else None


def _licences(record: SegmentorCheckpoint, recipe: Recipe) -> Licences:
    settings = recipe.settings
    student = settings.registry.student_licence or UNKNOWN_LICENCE
    if record.teacher is None:
        return Licences(student=student)
    teacher = _teacher_of(record, settings)
    return Licences(
        student=student,
        teacher=UNKNOWN_LICENCE if teacher is None else weights_licence(teacher, settings.registry.teacher_licence),
    )
