"""How the Jobs API is asked: with patience where waiting may help, and not where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")

from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from gkd_core.cluster import remote_client as client
from gkd_core.cluster.remote_client import Cluster
from gkd_core.errors import GkdError, PlatformError, TransientError


class Api:
    """A Jobs API that gives each of its answers in turn, the last one again and again."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.asked = list(answers), 0

    def __call__(self, *arguments: object, **options: object) -> Any:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """One that has been reached; its clock is quick."""
    monkeypatch.setattr(client, "JobSubmissionClient", lambda address: type("Client", (), {})())
    monkeypatch.setattr(client, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(client, "PATIENCE_SECONDS", 0.1)
    return Cluster("http://head:8265")


def test_a_head_that_answers_again_is_waited_for(cluster: Cluster) -> None:
    api = Api(ConnectionError("refused"), RuntimeError("Request failed with status code 503: x."), JobStatus.RUNNING)
    cluster._client.get_job_status = api
    assert cluster.status("job") == JobStatus.RUNNING
    assert api.asked == 3


@pytest.mark.parametrize(
    ("failure", "kind", "words"),
    [
        (ConnectionError("refused"), TransientError, "does not answer"),
        (RuntimeError("Request failed with status code 429: slow down."), TransientError, "does not answer"),
        (RuntimeError("Request failed with status code 404: Job x does not exist."), TransientError, "lost the job"),
        (RuntimeError("Request failed with status code 400: bad environment."), PlatformError, "refuses what was asked"),
        (AuthenticationError("no token"), PlatformError, "RAY_AUTH_TOKEN_PATH"),
    ],
)
def test_what_may_pass_is_told_from_what_will_not(cluster: Cluster, failure: Exception, kind: type[GkdError], words: str) -> None:
    api = Api(failure)
    cluster._client.get_job_status = api
    with pytest.raises(kind, match=words) as raised:
        cluster.status("job")
    assert type(raised.value) is kind
    assert (api.asked > 1) == ("does not answer" in words), "asked again only where that may help"


def test_a_job_whose_first_answer_was_lost_is_not_an_error(cluster: Cluster, tmp_path: Path) -> None:
    api = Api(ConnectionError("reset"), RuntimeError("status code 500: Job with submission_id already exists."))
    cluster._client.submit_job = api
    assert cluster.submit(tmp_path, "distill-proxy-1234").startswith("distill-proxy-1234-")
    assert api.asked == 2


def test_a_line_of_metrics_that_a_restarted_node_hands_on_again_counts_once(cluster: Cluster) -> None:
    """A step that was trained again was written at another moment, and counts again."""
    first, second, again = ('gkd-metrics {"step": 1, "written": 5.5}', 'gkd-metrics {"step": 2, "written": 6.5}',
                            'gkd-metrics {"step": 2, "written": 9.5}')  # fmt: skip
    lines = [f"(RayTrainWorker pid=7, ip=10.0.0.2) {line}\n" for line in (first, second, first, second, again)]
    api = cluster._client
    api.get_job_status = Api(JobStatus.RUNNING, JobStatus.SUCCEEDED)  # type: ignore[method-assign]
    api.get_job_logs = Api("".join(lines[:3]), "".join(lines))  # type: ignore[method-assign]
    steps: list[int] = []
    client._follow(cluster, "job", lambda step, values: steps.append(step))
    assert steps == [1, 2, 2]


def details(message: str | None) -> Any:
    return type("Details", (), {"message": message})()


def test_a_job_that_is_not_started_is_named_in_time(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    cluster._client.get_job_status = Api(JobStatus.PENDING)  # type: ignore[method-assign]
    cluster._client.get_job_info = Api(details("It may be waiting for resources.\nIt may be waiting for its environment."))  # type: ignore[method-assign]
    monkeypatch.setattr(client, "QUIET_SECONDS", 0.01)
    with pytest.raises(PlatformError, match="has not started job job-1 within 0.001 min .compute.start_minutes.: It may be wait"):
        client._wait_for_start(cluster, "job-1", minutes=0.001)
    assert "http://head:8265: job job-1 waits: It may be waiting for resources. It may" in capsys.readouterr().err


def test_a_job_that_starts_is_waited_for(cluster: Cluster) -> None:
    api = Api(JobStatus.PENDING, JobStatus.PENDING, JobStatus.RUNNING)
    cluster._client.get_job_status = api  # type: ignore[method-assign]
    client._wait_for_start(cluster, "job-1", minutes=1)
    assert api.asked == 3


@pytest.mark.parametrize(("said", "words"), [("Job supervisor actor failed to start within 900 s", "within 900 s"),
                                             (None, "Ray says nothing more of it")])  # fmt: skip
def test_what_ray_says_of_a_job_is_passed_on(cluster: Cluster, said: str | None, words: str) -> None:
    cluster._client.get_job_info = Api(details(said))  # type: ignore[method-assign]
    assert words in cluster.word("job-1")
