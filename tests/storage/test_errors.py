"""Every error of a client becomes one line that says what to do, and quotes no address."""

from __future__ import annotations

import pytest
from botocore import exceptions as botocore
from botocore.exceptions import ClientError
from urllib3.exceptions import ProtocolError

from gkd_core.errors import DataError, PlatformError, TransientError
from gkd_core.storage.errors import explain

SIGNED = "http://user:pass@host/bucket/key?X-Amz-Signature=abc"


def answer(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": SIGNED}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (answer("NoSuchKey", 404), DataError, "no such object"),
        (answer("404", 404), DataError, "no such object"),
        (answer("NoSuchBucket", 404), DataError, "no such bucket; make it with `gkd bucket bootstrap`"),
        (answer("AccessDenied", 403), PlatformError, "not allowed; give this user the rights that docs/s3.md lists"),
        (answer("403", 403), PlatformError, "not allowed"),
        (answer("InvalidAccessKeyId", 403), PlatformError, "does not know this access key; set AWS_ACCESS_KEY_ID"),
        (answer("SignatureDoesNotMatch", 403), PlatformError, "refuses the signature"),
        (answer("ExpiredToken"), PlatformError, "have expired"),
        (answer("PermanentRedirect", 301), PlatformError, "set AWS_REGION"),
        (answer("SlowDown", 503), TransientError, "the store answered 503 SlowDown; check AWS_ENDPOINT_URL"),
        (answer("PreconditionFailed", 412), TransientError, "was replaced while it was read"),
        (answer("Throttled", 429), TransientError, "the store answered 429"),
        (answer("InvalidRequest", 400), PlatformError, "the store answered 400 InvalidRequest"),
        (answer("\x1b[31m evil\n", 500), TransientError, "the store answered 500 31mevil"),
        (answer("", 500), TransientError, "the store answered 500 without a code"),
        (botocore.NoCredentialsError(), PlatformError, "no credentials found"),
        (botocore.ProfileNotFound(profile="x"), PlatformError, "AWS_PROFILE"),
        (botocore.EndpointConnectionError(endpoint_url=SIGNED), TransientError, "no connection to the endpoint"),
        (botocore.ConnectTimeoutError(endpoint_url=SIGNED), TransientError, "no connection in time"),
        (botocore.ReadTimeoutError(endpoint_url=SIGNED), TransientError, "no answer in time"),
        (botocore.SSLError(endpoint_url=SIGNED, error="x"), PlatformError, "AWS_CA_BUNDLE"),
        (botocore.ConnectionClosedError(endpoint_url=SIGNED), TransientError, "the connection broke"),
        (botocore.IncompleteReadError(actual_bytes=1, expected_bytes=2), TransientError, "the connection broke"),
        (ProtocolError(SIGNED), TransientError, "the connection broke"),
        (botocore.InvalidRetryModeError(provided_retry_mode="x", valid_modes="y"), PlatformError, "check the AWS variables"),
    ],
)
def test_what_went_wrong_is_said_in_one_line(error: Exception, kind: type[Exception], words: str) -> None:
    ours = explain(error, "s3://bucket/key", "download")
    assert type(ours) is kind
    assert str(ours).startswith(f"s3://bucket/key: download: {words}") or words in str(ours)
    assert str(ours).isprintable() and "http" not in str(ours) and "pass@" not in str(ours)
