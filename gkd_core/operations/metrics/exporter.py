"""The exporter: asks MLflow and Prefect at each scrape, so that it has no state and is never stale."""

from __future__ import annotations

import os

# A scrape is over in seconds: MLflow's client would try for minutes. Read when mlflow is imported, or at the first request.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from requests.exceptions import RequestException
from sqlalchemy.exc import SQLAlchemyError

from gkd_core.errors import PlatformError
from gkd_core.operations.metrics.gauges import ADDRESS, Gauges, read_mlflow, read_prefect

logging.getLogger("mlflow").setLevel(logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)
LOG = logging.getLogger(__name__)
FAILURES = (MlflowException, RequestException, SQLAlchemyError)


@dataclass(frozen=True)
class Watched:
    """What is watched: MLflow by its address, an experiment and the registered models `<models>-…`, and a pool of Prefect."""

    mlflow: str
    experiment: str
    models: str
    pool: str


class PlatformCollector(Collector):
    """Gauges of the platform as it is at each scrape. A service that does not answer has `gkd_up` 0, and no other gauge."""

    def __init__(self, watched: Watched, environment: Mapping[str, str]) -> None:
        self._watched, self._environment = watched, environment

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())  # known at a scrape, not before: nothing is asked while it is registered

    def collect(self) -> Iterator[GaugeMetricFamily]:
        watched, up = self._watched, Gauges()
        services: dict[str, Callable[[Gauges], None]] = {
            "mlflow": lambda gauges: read_mlflow(MlflowClient(watched.mlflow), watched.experiment, watched.models, gauges)
        }
        if self._environment.get(ADDRESS):
            services["prefect"] = lambda gauges: read_prefect(self._environment, watched.pool, gauges)
        for name, read in services.items():
            gauges = Gauges()
            try:
                read(gauges)
            except FAILURES as error:
                # Its address may have a password in it: what kind of failure it is says enough.
                LOG.warning("%s did not answer a scrape: %s", name, type(error).__name__)
                up.set("gkd_up", 0, name)
            else:
                up.set("gkd_up", 1, name)
                yield from gauges.families
        yield from up.families


def serve(watched: Watched, host: str, port: int, environment: Mapping[str, str] = os.environ) -> None:
    """Answer scrapes at `http://host:port/metrics` until the process is ended.

    Raises:
        PlatformError: the port is in use.
    """
    registry = CollectorRegistry()
    registry.register(PlatformCollector(watched, environment))
    try:
        _, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise PlatformError(f"port {port}: {error.strerror}; choose another by --port") from None
    thread.join()
