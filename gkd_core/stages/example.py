"""What a source's student is shown as an example."""

from __future__ import annotations

from pathlib import Path

import torch

from gkd_core.data.catalog.load import load_catalog
from gkd_core.data.example import example_batch
from gkd_core.settings import Settings
from gkd_core.stages.domains import benchmarks
from gkd_core.stages.origin import data_origin


def source_example(settings: Settings, source: str, workspace: Path) -> torch.Tensor:
    """Images (2, 3, H, W) of the source's own validation split, at the size of the evaluation's window, float32 in 0..1.

    Raises:
        DataError: the split is not there; prepare-data looks after that.
    """
    catalog = load_catalog(settings.data.catalogs)
    validation = next(item.validation for item in benchmarks(settings, catalog) if item.source.name == source)
    return example_batch(data_origin(settings, workspace), catalog, validation, settings.evaluate.window)
