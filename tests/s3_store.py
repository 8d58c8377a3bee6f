"""An S3 store of our own on loopback, gone with the block; it forgets all that it holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.etree import ElementTree

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.infra.policy_language import CREATES, IF_NONE_MATCH, Request

Watch = Callable[[str, Request], None]
"""Called with the access key and what is asked with it."""


@contextmanager
def s3_store(watch: Watch | None = None) -> Iterator[str]:
    """Its address."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    if watch is not None:
        assert server._server is not None
        server._server.app = _watched(server._server.app, watch)
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def s3_bucket(name: str, secret: str, watch: Watch | None = None) -> Iterator[dict[str, str]]:
    """A store with one bucket; gives the variables by which every AWS client speaks to it, which are set for this process too."""
    with s3_store(watch) as address, pytest.MonkeyPatch.context() as patch:
        environment = {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for variable, value in environment.items():
            patch.setenv(variable, value)
        boto3.client("s3").create_bucket(Bucket=name)
        yield environment


def _watched(app: Any, watch: Watch) -> Callable[[dict[str, Any], Any], Iterable[bytes]]:
    """The application, told of before it answers."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        key = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].partition("/")[0]
        for request in _requests(environ):
            watch(key, request)
        result: Iterable[bytes] = app(environ, start_response)
        return result

    return answer


def _requests(environ: dict[str, Any]) -> list[Request]:
    """What an HTTP request asks for, in the names of AWS's actions and condition keys."""
    method = environ["REQUEST_METHOD"]
    place = unquote(environ["RAW_URI"].partition("?")[0]).lstrip("/")
    query = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    if "/" not in place.rstrip("/") and method in ("GET", "HEAD"):
        return [Request("s3:ListBucket", place.rstrip("/"))]
    if method == "POST" and "delete" in query:
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        environ["wsgi.input"] = BytesIO(body)
        keys = [item.text or "" for item in ElementTree.fromstring(body).iter() if item.tag.rpartition("}")[2] == "Key"]
        return [Request("s3:DeleteObject", f"{place.rstrip('/')}/{key}") for key in keys]
    if method == "DELETE":
        return [Request("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", place)]
    if method in ("GET", "HEAD"):
        return [Request("s3:GetObject", place)]
    creates = (method == "PUT" and "partNumber" not in query) or (method == "POST" and "uploadId" in query)
    facts = {CREATES: str(creates).lower()}
    if (condition := environ.get("HTTP_IF_NONE_MATCH")) is not None:
        facts[IF_NONE_MATCH] = condition
    return [Request("s3:PutObject", place, facts)]
