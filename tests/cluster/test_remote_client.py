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
