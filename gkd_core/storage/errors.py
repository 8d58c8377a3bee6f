"""What botocore raises, in one line that says what failed and what to do. Addresses that it quotes stay out: some are signed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore import exceptions as botocore
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from gkd_core.errors import DataError, GkdError, PlatformError, TransientError

FAILURES = (BotoCoreError, ClientError, HTTPError)

NETWORK = "check AWS_ENDPOINT_URL, that the store is up, and the network; then run the same again, what is done stays done"
CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SHARED_CREDENTIALS_FILE to a mounted file, of a user of this store"
)

MISSING = {
    "NoSuchBucket": "no such bucket; make it with `gkd bucket bootstrap`, or check AWS_ENDPOINT_URL",
    "NoSuchKey": "no such object; check the address, and that its upload was finished",
    "NoSuchVersion": "no such version of the object",
    "NoSuchUpload": "its multipart upload is gone: it was ended by somebody else or by a lifecycle rule; upload again",
}
REFUSED = {
    "AccessDenied": "not allowed; give this user the rights that docs/s3.md lists",
    "InvalidAccessKeyId": f"the store does not know this access key; {CREDENTIALS}",
    "SignatureDoesNotMatch": f"the store refuses the signature: wrong secret key or region, or wrong clock; {CREDENTIALS}",
    "ExpiredToken": "the credentials have expired; get new ones",
    "RequestTimeTooSkewed": "this machine's clock is off; set it",
    "PermanentRedirect": "the bucket lies in another region; set AWS_REGION to it",
    "AuthorizationHeaderMalformed": "the bucket lies in another region; set AWS_REGION to it",
    "PreconditionFailed": "the object was replaced while it was read; run the same again",
    "ConditionalRequestConflict": "somebody else wrote the object at the same time; run the same again",
    "BucketAlreadyExists": "a bucket of this name belongs to somebody else; choose another name",
    "BadDigest": "what arrived at the store is not what was sent; run the same again",
}
# What the same work, done again, need not meet; and so are all answers of status 5xx and 429.
PASSING = ("PreconditionFailed", "ConditionalRequestConflict", "BadDigest", "RequestTimeout", "SlowDown")
# Answers to HEAD have no body, so that only the status says what is wrong.
STATUS = {"404": "NoSuchKey", "403": "AccessDenied", "412": "PreconditionFailed", "301": "PermanentRedirect"}

# In the order of trial, special ones first.
WORDS: tuple[tuple[type[Exception], type[PlatformError], str], ...] = (
    (botocore.NoCredentialsError, PlatformError, f"no credentials found; {CREDENTIALS}"),
    (botocore.PartialCredentialsError, PlatformError, f"half of the credentials found; {CREDENTIALS}"),
    (botocore.CredentialRetrievalError, TransientError, f"the credentials cannot be fetched; {CREDENTIALS}"),
    (botocore.ProfileNotFound, PlatformError, "AWS_PROFILE names a profile that no file has; check it and AWS_CONFIG_FILE"),
    (
        botocore.ConfigParseError,
        PlatformError,
        "the file that AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE names cannot be read; correct it",
    ),
    (botocore.SSLError, PlatformError, "the store's certificate is not trusted; set AWS_CA_BUNDLE to the authority's file"),
    (botocore.ConnectTimeoutError, TransientError, f"no connection in time; {NETWORK}"),
    (botocore.ReadTimeoutError, TransientError, f"no answer in time; {NETWORK}"),
    (botocore.EndpointConnectionError, TransientError, f"no connection to the endpoint; {NETWORK}"),
    (botocore.ProxyConnectionError, TransientError, "no connection to the proxy; check HTTPS_PROXY"),
    (botocore.HTTPClientError, TransientError, f"the connection broke; {NETWORK}"),
    (botocore.IncompleteReadError, TransientError, f"the connection broke; {NETWORK}"),
    (botocore.ParamValidationError, PlatformError, "a name or value that S3 does not allow"),
    (HTTPError, TransientError, f"the connection broke; {NETWORK}"),
)


def code_of(error: ClientError) -> str:
    """The store's error code, such as `NoSuchKey`; of an answer without one, the name that its status stands for."""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return STATUS.get(code, code)


@contextmanager
def explained(place: object, doing: str) -> Iterator[None]:
    """Raise what a client raises in the block as an error of ours that begins with `place: doing`."""
    try:
        yield
    except FAILURES as error:
        raise explain(error, place, doing) from None


def explain(error: Exception, place: object, doing: str) -> GkdError:
    """The error as ours, one line: `DataError` where a bucket or object is missing, else `PlatformError`, and of these
    `TransientError` where the store may answer otherwise a little later.
    """
    if isinstance(error, ClientError):
        code = code_of(error)
        if code in MISSING:
            return DataError(f"{place}: {doing}: {MISSING[code]}")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "no status")
        advice = REFUSED.get(code, f"the store answered {status} {_plain(code)}; {NETWORK}")
        passing = code in PASSING or (isinstance(status, int) and (status >= 500 or status == 429))
        return (TransientError if passing else PlatformError)(f"{place}: {doing}: {advice}")
    for kind, ours, words in WORDS:
        if isinstance(error, kind):
            return ours(f"{place}: {doing}: {words}")
    return PlatformError(f"{place}: {doing}: {type(error).__name__}; check the AWS variables (docs/s3.md lists them)")


def _plain(code: str) -> str:
    """A code as a store may send it: letters and digits, not too many."""
    return "".join(char for char in code if char.isalnum())[:60] or "without a code"
