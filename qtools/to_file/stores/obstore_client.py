"""obstore's client of a bucket, and its credentials. In: the parts of a URL. Out: functions that make clients."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qtools.errors import StartError, UsageError
from qtools.to_file.stores.store_errors import translate

CONNECT_TIMEOUT = 10.0  # s
# s for a whole request: enough for 16 MiB at 1.1 Mbit/s. A server that hangs is noticed only after this time.
REQUEST_TIMEOUT = 120.0


def make_client(
    scheme: str, bucket: str, prefix: str, endpoint: str, patience: float
) -> tuple[Callable[[], Any], Callable[[], bool]]:
    """Two functions: the first makes a client with the credentials that were read last; the second reads the
    credentials again, and returns whether a new client may have permissions that the present one lacks.

    patience: s for which the client repeats a failing request. StartError when there are no credentials.
    """
    if scheme == "s3":
        from qtools.to_file.stores.credentials import S3Credentials

        credentials = S3Credentials()
        return lambda: _client(scheme, bucket, prefix, endpoint, patience, credentials.settings), credentials.renew
    # obstore reads a file of credentials whenever a client is made.
    return lambda: _client(scheme, bucket, prefix, endpoint, patience, {}), lambda: True


def _client(scheme: str, bucket: str, prefix: str, endpoint: str, patience: float, given: dict[str, Any]) -> Any:
    """A client. given: `config` and `credential_provider`, if the environment does not provide them."""
    from obstore import store as stores

    settings: dict[str, Any] = {
        "prefix": prefix or None,
        "retry_config": {
            "max_retries": 1000,  # retry_timeout is the effective limit
            "retry_timeout": timedelta(seconds=patience),
            "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=3), "base": 2},
        },
    }
    client: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT),
        "timeout": timedelta(seconds=REQUEST_TIMEOUT),
    }
    if authority := os.environ.get("AWS_CA_BUNDLE"):
        try:
            client["root_certificate"] = Path(authority).read_bytes()
        except OSError as error:
            raise StartError(f"cannot read AWS_CA_BUNDLE {authority}: {error.strerror or error}") from error
    makers: dict[str, Any] = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}
    if scheme == "s3":
        config = dict(given["config"])
        if endpoint:
            # The first name takes precedence over the environment.
            config["aws_endpoint_url_s3"] = config["endpoint"] = endpoint
        in_use = (
            endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            or os.environ.get("AWS_ENDPOINT") or config.get("endpoint", "")
        )  # fmt: skip
        if in_use:
            # Unencrypted only if the user has written http://.
            client["allow_http"] = _check_endpoint(in_use).startswith("http://")
        settings |= given | {"config": config}
    try:
        return makers[scheme](bucket, client_options=client, **settings)
    except Exception as error:
        translated = translate(error, f"{scheme}://{bucket}", REQUEST_TIMEOUT)
        raise StartError(str(translated)) from error


def _check_endpoint(endpoint: str) -> str:
    """Return a valid `endpoint`, else UsageError: obstore panics on an endpoint that is no URL."""
    try:
        parts = urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or not endpoint.isprintable() or " " in endpoint:
        raise UsageError("the S3 endpoint is not an address such as https://HOST:PORT")
    if "@" in parts.netloc:
        raise UsageError(
            "the S3 endpoint contains a user name or password, which other users of this machine could read"
        )
    return endpoint
