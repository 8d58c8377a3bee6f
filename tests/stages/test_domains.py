"""Which datasets each stage reads, and what for."""

from __future__ import annotations

from pathlib import Path

from gkd_core.data.catalog.load import load_catalog
from gkd_core.settings import load_settings
from gkd_core.stages import Recipe

SETTINGS = load_settings(None, "demo")
CATALOG = load_catalog()


def read(stage: str, source: str | None = None) -> dict[str, str]:
    return Recipe(SETTINGS, CATALOG).domains_read(Recipe.of(SETTINGS).find(stage, source))


def test_each_part_is_named() -> None:
    assert read("distill-proxy") == {"proxy/all": "proxy"}
    assert read("distill-source", "gta5") == read("learn-task", "gta5") == {"gta5/train": "source"}
    assert read("evaluate", "gta5") == {
        "gta5/val": "validation", "cityscapes/val": "target", "bdd100k/val": "target", "mapillary/val": "target"
    }  # fmt: skip
    assert read("report") == {}


def test_prepare_data_reads_all_and_a_domain_can_play_two_parts() -> None:
    everything = read("prepare-data")
    assert everything.keys() == {domain.reference for domain in Recipe(SETTINGS, CATALOG).domains}
    assert everything["cityscapes/val"] == "validation, target"


def test_every_stage_depends_on_the_domains_that_it_reads() -> None:
    """What a stage reads lies in what DVC is told of: for each domain, an input in its folders or above them."""
    recipe = Recipe(SETTINGS, CATALOG)
    for run in recipe.plan[1:]:
        for reference in recipe.domains_read(run):
            (folder,) = recipe.origin(Path()).inputs(CATALOG.domain(reference))
            assert folder.parts[:2] == ("artifacts", "data")
            assert any(Path(folder) in (path, *path.parents) for path in run.inputs), f"{run.name}: {reference}"
