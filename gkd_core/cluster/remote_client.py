"""A stage handed to a Ray cluster elsewhere: submitted by the Jobs API, followed, stopped with us, its result checked.

Authentication is by the token that RAY_AUTH_TOKEN_PATH (or RAY_AUTH_TOKEN) names, with RAY_AUTH_MODE=token.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

from gkd_core.cluster.job_log import WRITTEN, parse_error, parse_metrics, parse_result
from gkd_core.cluster.job_package import JOB, RemoteWork, pack, place_of, result_of, send_inputs
from gkd_core.errors import DataError, GkdError, PlatformError, TransientError
from gkd_core.files import atomic_file, atomic_folder, scratch_folder
from gkd_core.messages import one_line
from gkd_core.notes import clear_file
from gkd_core.records import sha256_of
from gkd_core.storage.client import connect
from gkd_core.storage.keys import Location
from gkd_core.storage.trees import download_tree
from gkd_core.training.cost import FOLDER as COSTS
from gkd_core.training.metrics import MetricsSink, file_sink

POLL_SECONDS = 1.0
QUIET_SECONDS = 30.0
LONGEST_POLL_SECONDS = 15.0
CHARACTERS_PER_SECOND = 200_000
PATIENCE_SECONDS = 180.0  # how long a head that does not answer is waited for
STOP_SECONDS = 15.0  # less than the grace that a stage has when it is told to end
MARK = "elsewhere"  # file of a run folder that says where its checkpoints lie: there is something to go on from
WORK = "gkd.work"  # metadata of a job: name and digest of its work
ENTRYPOINT = "python -m gkd_core.stages.remote_job"
# Lines of the workers reach the job's log, each one of them.
ENVIRONMENT = {"RAY_DEDUP_LOGS": "0"}
REFUSAL = re.compile(r"status code 4(?!08|29)\d\d")  # all but "too slow" and "too often": waiting will not help
FAILURES = (RuntimeError, requests.RequestException, ConnectionError)
Result = TypeVar("Result")


def run_remotely(work: RemoteWork) -> None:
    """Run a stage on the cluster that `compute.address` names, as if it ran here: same inputs, same output, same metrics.

    A job of the same work that still runs there, as its submitter's machine went down, is taken over. Checkpoints lie in
    `compute.storage`, so that a later job goes on where an earlier one was stopped.

    Raises:
        GkdError: the stage's own error, as it was raised there.
        TransientError: the cluster does not answer, or lost the job.
        PlatformError: the cluster refuses us, or does not start the job.
    """
    place = place_of(work.settings, work.name)
    send_inputs(work, place)
    cluster = Cluster(work.settings.compute.address)
    mark = work.run_folder / MARK
    clear_file(mark, "it is written again")
    with atomic_file(mark) as temporary:
        temporary.write_text(f"{place}\n", encoding="utf-8")
    job = cluster.running(work.name) or _submit(cluster, work, place)
    with _stopped_with_us(cluster, job):
        _wait_for_start(cluster, job, work.settings.compute.start_minutes)
        error, files = _follow(cluster, job, file_sink(work.run_folder))
        status = cluster.status(job)
    if error is not None:
        raise error
    if status != JobStatus.SUCCEEDED:
        word = one_line(cluster.word(job), 400)
        raise TransientError(f"{work.name}: job {job} at {cluster.address} ended as {status}: {word}; see its log")
    if files is None:
        raise TransientError(f"{work.name}: job {job} at {cluster.address} did not say what it has written; see its log")
    fetch_result(result_of(place, job), work.output, files)
    _fetch_costs(place, work.run_folder)
    mark.unlink()


class Cluster:
    """The Jobs API of one cluster, with retries."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = self._patiently(lambda: JobSubmissionClient(address))

    def running(self, work: str) -> str | None:
        """Id of a job of this work that has not ended."""
        jobs = self._patiently(self._client.list_jobs)
        live = [job for job in jobs if (job.metadata or {}).get(WORK) == work and not job.status.is_terminal()]
        return live[0].submission_id if live else None

    def submit(self, folder: Path, work: str) -> str:
        """Start a job in a copy of the folder."""
        name = f"{work}-{secrets.token_hex(4)}"
        environment = {"working_dir": str(folder), "env_vars": {**ENVIRONMENT, JOB: name}}

        def send() -> None:
            try:
                self._client.submit_job(entrypoint=ENTRYPOINT, submission_id=name, runtime_env=environment, metadata={WORK: work})
            except RuntimeError as error:
                if "already exists" not in str(error):  # said again, as the first answer was lost on its way
                    raise

        self._patiently(send)
        return name

    def status(self, job: str) -> JobStatus:
        return self._patiently(lambda: self._client.get_job_status(job))

    def word(self, job: str) -> str:
        """What Ray itself says of the job's state."""
        details = self._patiently(lambda: self._client.get_job_info(job))
        return details.message or "Ray says nothing more of it"

    def log(self, job: str) -> str:
        """All that the job has written."""
        return self._patiently(lambda: self._client.get_job_logs(job))

    def stop(self, job: str) -> None:
        """Stop a job, and wait a little until it is."""
        deadline = time.monotonic() + STOP_SECONDS
        with contextlib.suppress(*FAILURES):
            self._client.stop_job(job)
            while not self._client.get_job_status(job).is_terminal() and time.monotonic() < deadline:
                time.sleep(0.2)

    def _patiently(self, ask: Callable[[], Result]) -> Result:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return ask()
            except AuthenticationError:
                raise PlatformError(
                    f"{self.address}: Ray refuses us; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file with its token"
                ) from None
            except FAILURES as error:
                text = one_line(error, 300)
                if "does not exist" in text:
                    raise TransientError(f"{self.address}: Ray has lost the job, as after a restart of its head") from None
                if REFUSAL.search(text):
                    raise PlatformError(f"{self.address}: Ray's Jobs API refuses what was asked ({text})") from None
                if time.monotonic() > deadline:
                    raise TransientError(f"{self.address}: Ray's Jobs API does not answer ({text})") from None
                time.sleep(POLL_SECONDS)


def _submit(cluster: Cluster, work: RemoteWork, place: Location) -> str:
    with scratch_folder("parcel") as temporary:
        pack(work, place, temporary)
        return cluster.submit(temporary, work.name)


def _wait_for_start(cluster: Cluster, job: str, minutes: float) -> None:
    """Wait until the job's program runs, and say now and then that it does not yet.

    Raises:
        PlatformError: it was not started in time.
    """
    started = spoke = time.monotonic()
    while cluster.status(job) == JobStatus.PENDING:
        now = time.monotonic()
        if now - started > minutes * 60:
            raise PlatformError(
                f"{cluster.address}: Ray has not started job {job} within {minutes:g} min (compute.start_minutes): "
                f"{one_line(cluster.word(job), 400)}; look at the head: its log of that job's agent, its memory, and `ray status`"
            )
        if now - spoke >= QUIET_SECONDS:
            spoke = now
            print(f"{cluster.address}: job {job} waits: {one_line(cluster.word(job))}", file=sys.stderr, flush=True)
        time.sleep(POLL_SECONDS)


def _follow(cluster: Cluster, job: str, sink: MetricsSink) -> tuple[GkdError | None, dict[str, str] | None]:
    """Show the job's log as it grows and pass its metrics on, until it ends; gives the error that it told of, and the digests of
    its result."""
    seen, error, files = 0, None, None
    told_of: set[tuple[float, float]] = set()
    while True:
        ended = cluster.status(job).is_terminal()
        lines = cluster.log(job).splitlines(keepends=True)
        for line in lines[seen:]:
            if not line.endswith("\n") and not ended:
                break
            seen += 1
            error = parse_error(line) or error
            if (metrics := parse_metrics(line)) is not None:
                once = (metrics.pop("step"), metrics.pop(WRITTEN))
                if once not in told_of:
                    told_of.add(once)
                    sink(int(once[0]), metrics)
            elif (told := parse_result(line)) is not None:
                files = told
            else:
                print(line.rstrip("\n"), file=sys.stderr, flush=True)
        if ended:
            return error, files
        # The API gives a log whole: a long one is asked for less often.
        time.sleep(min(LONGEST_POLL_SECONDS, POLL_SECONDS + sum(map(len, lines)) / CHARACTERS_PER_SECOND))


@contextmanager
def _stopped_with_us(cluster: Cluster, job: str) -> Iterator[None]:
    """Stop the job where the block does not end by itself: cancelled, interrupted, or no longer able to follow."""
    try:
        yield
    except BaseException:
        cluster.stop(job)
        raise


def _fetch_costs(place: Location, run_folder: Path) -> None:
    """Put what workers have noted of their costs beside our own notes."""
    try:
        download_tree(connect(), place / COSTS, run_folder / COSTS)
    except DataError:
        return  # in one process on the head, there are no workers


def fetch_result(place: Location, output: Path, files: Mapping[str, str]) -> None:
    """Fetch a finished stage's output, complete and checked by the digests that the job has logged.

    Args:
        place: the prefix of the job's own result.
        files: SHA-256 by path.

    Raises:
        DataError: a file is missing, is one too many, or is not what the job has written.
        GkdError: the bucket refuses or fails.
    """
    client = connect()
    with atomic_folder(output) as folder:
        download_tree(client, place, folder)
        found = {path.relative_to(folder).as_posix(): sha256_of(path) for path in folder.rglob("*") if path.is_file()}
        wrong = sorted(name for name in found.keys() | files.keys() if found.get(name) != files.get(name))
        if wrong:
            raise DataError(f"{place}: {', '.join(wrong)}: not as the job has written it; run again: a new job has a new prefix")
