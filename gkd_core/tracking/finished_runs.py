"""Finished runs read back from an MLflow store, as facts to compare."""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when mlflow is imported
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for each small file would drown the table

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from gkd_core.errors import PlatformError
from gkd_core.messages import one_line
from gkd_core.records import PictureList, ScoreTable
from gkd_core.reports.comparison import RunFacts, StoredPicture
from gkd_core.storage.mlflow_store import PARENT_TAG, quoted
from gkd_core.tracking.costs import COST, UNKNOWN_TAG
from gkd_core.tracking.flow_runs import WEIGHTS_TAG

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

MATRIX = "report/matrix.json"
PICTURES, PICTURE_LIST = "pictures", "pictures.json"
GROUP = "comparison"
# Kinds whose scores are of students that have runs of their own: looked at only where they are asked for.
REPEATING = (GROUP, "evaluation")
PAGE = 100
NAMES_SHOWN = 8
REVISION = 10  # characters of a git revision that are shown


class RunStore:
    """The runs of one experiment, and whatever runs are named by their ids.

    Raises:
        PlatformError: there is no such store or experiment.
    """

    def __init__(self, address: str, experiment: str) -> None:
        self.address = address
        try:
            self._client = MlflowClient(address)
            found = self._client.get_experiment_by_name(experiment)
        except MlflowException as error:
            raise PlatformError(f"MLflow at {address}: {one_line(error, 300)}") from None
        if found is None:
            names = ", ".join(sorted(each.name for each in self._client.search_experiments()))
            raise PlatformError(f"--experiment {experiment}: {address} has none of this name; it has {names}")
        self._experiment = str(found.experiment_id)

    def named(self, names: Sequence[str]) -> list[Run]:
        """Runs by id or name, the newest of a name; one of a comparison stands for those that it compared.

        Raises:
            PlatformError: there is no such run, or it is not finished or has no scores.
        """
        found: dict[str, Run] = {}
        for name in names:
            run = self._by_id(name) or self._by_name(name)
            for each in self._of_group(run):
                found[each.info.run_id] = each
        return _newest_first(found.values())

    def recent(self, count: int, kind: str | None, where: str | None) -> list[Run]:
        """The newest finished runs with scores, of a kind (None: of any that makes students) and by a filter of MLflow's: so
        many, or all of the comparison that the last of them is in.

        Raises:
            PlatformError: there are none, or MLflow does not understand the filter.
        """
        parts = ["attributes.status = 'FINISHED'", "tags.stage IS NULL"]
        parts += [f"tags.kind = {quoted(kind)}"] if kind else []
        parts += [where] if where else []
        found: dict[str, Run] = {}
        for run in self._search(" and ".join(parts)):
            if kind is None and run.data.tags.get("kind") in REPEATING:
                continue
            found |= {each.info.run_id: each for each in self._of_group(run) if self._has_scores(each)}
            if len(found) >= count:
                break
        if not found:
            raise PlatformError(
                f"{self.address}: no finished run with scores there{f' for {where or kind}' if where or kind else ''}"
            )
        return _newest_first(found.values())

    def facts(self, run: Run, folder: Path) -> RunFacts:
        """What a run has to tell; its files are fetched to the folder.

        Raises:
            PlatformError: it has no scores.
        """
        tags = run.data.tags
        if not self._has_scores(run):
            raise PlatformError(f"run {run.info.run_name} ({run.info.run_id}): it has no {MATRIX}, so nothing to compare")
        folder = folder / run.info.run_id
        folder.mkdir(parents=True, exist_ok=True)
        table = ScoreTable.read(Path(self._client.download_artifacts(run.info.run_id, MATRIX, str(folder))))
        revision = tags.get("mlflow.source.git.commit", "")[:REVISION]
        return RunFacts(
            name=str(run.info.run_name),
            scores=table.scores,
            run_id=run.info.run_id,
            url=self._url(run),
            settings=dict(run.data.params),
            costs={key.removeprefix(COST): value for key, value in run.data.metrics.items() if key.startswith(COST)},
            unknown_costs=tags.get(UNKNOWN_TAG, ""),
            data={item.dataset.name: item.dataset.digest for item in (run.inputs.dataset_inputs if run.inputs else ())},
            weights=frozenset(value for key, value in tags.items() if key.startswith(WEIGHTS_TAG)),
            code=f"{revision} with changes" if revision and tags.get("git.dirty") == "true" else revision,
            pictures=tuple(self._pictures(run.info.run_id, folder)),
        )

    def _search(self, query: str) -> Iterator[Run]:
        """Runs by a query, newest first, page after page."""
        token = None
        while True:
            try:
                page = self._client.search_runs(
                    [self._experiment], query, max_results=PAGE, order_by=["attributes.start_time DESC"], page_token=token
                )
            except MlflowException as error:
                raise PlatformError(f"MLflow does not take the filter: {one_line(error, 300)}") from None
            yield from page
            token = page.token
            if not token:
                return

    def _by_id(self, run_id: str) -> Run | None:
        try:
            return self._client.get_run(run_id)
        except MlflowException:
            return None

    def _by_name(self, name: str) -> Run:
        found = next(self._search(f"attributes.run_name = {quoted(name)}"), None)
        if found is None:
            recent = self._search("attributes.status = 'FINISHED' and tags.stage IS NULL")
            names = ", ".join(str(run.info.run_name) for run, _ in zip(recent, range(NAMES_SHOWN), strict=False))
            raise PlatformError(
                f"{name}: no run has this id or name in {self.address}; the newest finished are: {names or 'none'}"
            )
        return found

    def _of_group(self, run: Run) -> list[Run]:
        """The finished runs that a comparison compared; any other run itself."""
        if run.data.tags.get("kind") != GROUP:
            return [run]
        return list(self._search(f"tags.`{PARENT_TAG}` = '{run.info.run_id}' and attributes.status = 'FINISHED'"))

    def _has_scores(self, run: Run) -> bool:
        listed = self._client.list_artifacts(run.info.run_id, str(PurePosixPath(MATRIX).parent))
        return MATRIX in {item.path for item in listed}

    def _pictures(self, run_id: str, folder: Path) -> Iterator[StoredPicture]:
        for source in self._client.list_artifacts(run_id, PICTURES):
            if source.is_dir:
                local = Path(self._client.download_artifacts(run_id, source.path, str(folder)))
                # Their files have plain names: nothing outside the folder is read, whatever the list says.
                for drawn in PictureList.read(local / PICTURE_LIST).pictures:
                    domain = drawn.domain or f"all domains of {PurePosixPath(source.path).name}"
                    yield StoredPicture(drawn.title, drawn.kind, domain, local / drawn.file)

    def _url(self, run: Run) -> str | None:
        if not self.address.startswith(("http://", "https://")):
            return None
        return f"{self.address.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"


def _newest_first(runs: Any) -> list[Run]:
    return sorted(runs, key=lambda run: -run.info.start_time)
