"""obstore's exceptions → StoreError. In: an exception. Out: an error of one line that says what to do.

Only this file knows how obstore words its errors. obstore has few classes of exceptions; the kind of an error has to be
read from its text, which contains the HTTP status and the code in the store's XML. Of that text, only the store's own
message is shown to the user: the rest is a dump of the request.
"""

from __future__ import annotations

import re

from qtools.errors import StoreError

_STATUS = re.compile(r"status code: (\d{3})(?: ([A-Za-z -]+))?")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,300})</Message>")
_REQUEST = re.compile(r"Error performing ([A-Z]+) (\S+) in ")
_SYSTEM = re.compile(r'Os \{[^}]*message: "([^"]{1,200})"')

# Addresses of instance metadata, where obstore looks for credentials last.
_METADATA = ("169.254.", "fd00:ec2::", "metadata.google.internal")

_WRONG_KEYS = frozenset(
    {"SignatureDoesNotMatch", "InvalidAccessKeyId", "InvalidToken", "AuthenticationFailed", "InvalidSecurity"}
)
_OLD_KEYS = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_WRONG_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound", "InvalidBucketName"})

# The S3 permissions that each kind of request needs; docs/q-to-file.md has the whole policy.
_NEEDED = {
    "GET": "s3:GetObject and s3:ListBucket",
    "HEAD": "s3:GetObject and s3:ListBucket",
    "DELETE": "s3:DeleteObject",
}

# The variables from which obstore reads credentials first, by the URL's scheme.
_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}


class NotThere(StoreError):
    """The object does not exist. As far as the store's answer shows, its bucket does."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "is not there", True)


class Denied(StoreError):
    """The store does not accept the credentials, or they do not permit the request. Newer ones may."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason, True)


def translate(error: BaseException, url: str, seconds: float) -> StoreError:
    """The StoreError for `error`, which a request for `url` raised. seconds: the time limit of a request."""
    text = str(error)
    status = _STATUS.search(text)
    code = found[1] if (found := _CODE.search(text)) else ""
    method, requested = found.groups() if (found := _REQUEST.search(text)) else ("", "")
    if requested and any(place in requested for place in _METADATA):
        return StoreError(
            url, f"there are no credentials: neither in the environment ({_variables(url)}) nor in a profile"
            " nor from instance metadata", True,
        )  # fmt: skip
    if "MissingAccount" in text:
        return StoreError(url, "no storage account is named: set AZURE_STORAGE_ACCOUNT_NAME", True)
    if status is not None:
        return _answered(url, int(status[1]), (status[2] or "").strip(), code, method, text)
    if isinstance(error, FileNotFoundError):
        return NotThere(url)
    return _unanswered(error, url, text, requested, seconds)


def _variables(url: str) -> str:
    return _VARIABLES.get(url.partition(":")[0], _VARIABLES["s3"])


def _answered(url: str, status: int, phrase: str, code: str, method: str, text: str) -> StoreError:
    """The error for an HTTP error status."""
    if code in _NO_BUCKET or (status == 404 and "?list-type=" in text):
        return StoreError(url, "there is no such bucket: create it, or correct the name", True)
    if status == 404:
        return NotThere(url)
    if code in _WRONG_KEYS or status == 401:
        return Denied(
            url, f"the store does not take these credentials ({code or status}): check {_variables(url)},"
            " or the profile",
        )  # fmt: skip
    if code in _OLD_KEYS:
        return Denied(url, f"the credentials have expired ({code}): renew them")
    if code in _WRONG_REGION or status in (301, 307):
        return StoreError(url, f"the bucket is in another region ({code or status}): set AWS_REGION to it", True)
    if code == "RequestTimeTooSkewed":
        return StoreError(
            url, "the store refuses our clock (RequestTimeTooSkewed): set this machine's time right", True
        )
    if status == 403:
        what = f"{method} is" if method else "this is"
        needed = _NEEDED.get(method, "s3:PutObject") if url.startswith("s3:") else "for it"
        return Denied(
            url, f"{what} denied ({code or '403'}): the credentials are wrong, or lack the permission {needed}"
        )  # fmt: skip
    if status == 400 and method == "HEAD":  # S3's answer to an expired token: a HEAD response has no body for a reason
        return Denied(url, "the store answers 400: the credentials may have expired")
    message = _MESSAGE.search(text)
    status_line = f"the store answers {status} {code or phrase}".rstrip()
    # 408, 409, 429 and everything from 500 on except 501 (Not Implemented) are temporary.
    permanent = (status < 500 and status not in (408, 409, 429)) or status == 501
    return StoreError(url, _clean(f"{status_line}: {message[1]}" if message else status_line), permanent)


def _unanswered(error: BaseException, url: str, text: str, requested: str, seconds: float) -> StoreError:
    """The error for a request that got no answer, or was never sent."""
    host = requested.partition("://")[2].partition("/")[0]
    if "dns error" in text:
        return StoreError(url, f"there is no host {host.partition(':')[0]}: check the endpoint", True)
    if "URL scheme is not allowed" in text or "BadScheme" in text:
        return StoreError(
            url, f"{requested or 'the endpoint'} is not encrypted: give it as --s3-endpoint http://…", True
        )
    if "certificate" in text.lower():
        return StoreError(
            url, f"the certificate of {host} is not trusted: name its CA in AWS_CA_BUNDLE, or check the endpoint", True
        )  # fmt: skip
    if "TimedOut" in text or "timed out" in text or "kind: Timeout" in text:
        return StoreError(url, f"no answer from {host or 'the store'} within {seconds:g} s")
    system = _SYSTEM.search(text)
    if host and system:
        return StoreError(url, f"{host}: {system[1].lower()}")
    if host:
        return StoreError(url, f"the connection to {host} broke off")
    if isinstance(error, OSError) and error.strerror:
        return StoreError(url, error.strerror.lower())
    if system:
        return StoreError(url, system[1].lower())
    return StoreError(url, _clean(text.partition("\n")[0]) or type(error).__name__)


def _clean(text: str) -> str:
    """A text from the store without control characters, which could act on a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:300]
