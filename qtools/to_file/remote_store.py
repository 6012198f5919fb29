"""The library's client of a bucket, and its credentials. In: what a URL names. Out: stores of obstore."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from qtools.errors import StartError, UsageError
from qtools.to_file.store_errors import translate

CONNECT_TIMEOUT = 10.0  # s
# s for a whole request: 16 MiB over 1.1 Mbit/s. A frozen server is noticed no sooner.
REQUEST_TIMEOUT = 120.0


def remote_store(
    scheme: str, bucket: str, prefix: str, endpoint: str, patience: float
) -> tuple[Callable[[], Any], Callable[[], bool]]:
    """Two functions: one makes the library's store, with the credentials as they were last read; the other reads them
    again, and returns whether another store may be allowed what this one is not.

    patience: s that a request may be tried again before it fails. StartError where there are no such credentials.
    """
    if scheme == "s3":
        from qtools.to_file.credentials import S3Credentials

        credentials = S3Credentials()
        return lambda: _remote(scheme, bucket, prefix, endpoint, patience, credentials.told), credentials.renew
    # The library reads a file of keys when a store is made.
    return lambda: _remote(scheme, bucket, prefix, endpoint, patience, {}), lambda: True


def _remote(scheme: str, bucket: str, prefix: str, endpoint: str, patience: float, told: dict[str, Any]) -> Any:
    """The library's store. told: what it has to be told beyond the environment: `config`, `credential_provider`."""
    from obstore import store as stores

    settings: dict[str, Any] = {
        "prefix": prefix or None,
        "retry_config": {
            "max_retries": 1000,  # it is the time that counts
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
        config = dict(told["config"])
        if endpoint:
            # By the name that is stronger than what the environment may say.
            config["aws_endpoint_url_s3"] = config["endpoint"] = endpoint
        in_use = (
            endpoint or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            or os.environ.get("AWS_ENDPOINT") or config.get("endpoint", "")
        )  # fmt: skip
        if in_use:
            # Unencrypted only where somebody wrote it so.
            client["allow_http"] = _check_endpoint(in_use).startswith("http://")
        settings |= told | {"config": config}
    try:
        return makers[scheme](bucket, client_options=client, **settings)
    except Exception as error:
        told_error = translate(error, f"{scheme}://{bucket}", REQUEST_TIMEOUT)
        raise StartError(str(told_error)) from error


def _check_endpoint(endpoint: str) -> str:
    """The library does not survive an endpoint that is no URL."""
    try:
        parts = urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.query or parts.fragment or not endpoint.isprintable() or " " in endpoint:
        raise UsageError("the S3 endpoint is no address such as https://HOST:PORT")
    if "@" in parts.netloc:
        raise UsageError("the S3 endpoint has a user or password in it, which everybody could read")
    return endpoint
