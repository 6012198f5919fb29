"""From a URL or path to the store that it names. In: a URL. Out: an ObjectStore; UsageError or StartError.

s3://bucket/prefix    gs://bucket/prefix    az://container/prefix        bucket.py
file:///directory, or a path                                             directory.py
"""

from __future__ import annotations

from urllib.parse import unquote

from qtools.errors import StartError, StoreError, UsageError
from qtools.to_file.stores.object_store import ObjectStore

PATIENCE = 10.0  # s for which obstore repeats a failing request by itself; the uploader then logs why it waits
FIRST_PATIENCE = 2.0  # s; a user who has just typed a command wants to know soon what is wrong with it
READ_PATIENCE = 60.0  # s for which a store may be unreachable in the middle of a long read


def open_store(url: str, *, endpoint: str = "", create: bool = False, patience: float = PATIENCE) -> ObjectStore:
    """The store at `url`; no request is made yet.

    endpoint: the address of an S3 server that is not AWS's, http://HOST:PORT. create: create the directory, if `url`
    is one. patience: s for which a failing request is repeated. UsageError for a URL that names no store, StartError
    for missing credentials or a missing directory.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        if endpoint:
            raise UsageError("an S3 endpoint goes with an s3:// URL only")
        from qtools.to_file.stores.directory import open_directory

        return open_directory(url, unquote(rest) if separator else url, create)
    if scheme not in ("s3", "gs", "az"):
        raise UsageError(f"{url!r} is no place for an archive: s3://, gs://, az://, file:// or a directory")
    bucket, _, prefix = rest.partition("/")
    if not bucket:
        raise UsageError(f"{url!r} names no bucket: {scheme}://BUCKET/PREFIX")
    if any(part in ("", ".", "..") for part in prefix.strip("/").split("/")) and prefix.strip("/"):
        raise UsageError(f"{url!r} has a prefix with an empty part, . or ..")
    if endpoint and scheme != "s3":
        raise UsageError("an S3 endpoint goes with an s3:// URL only")
    from qtools.to_file.stores.bucket import BucketStore
    from qtools.to_file.stores.obstore_client import make_client

    make, renew = make_client(scheme, bucket, prefix.strip("/"), endpoint, patience)
    return BucketStore(url.rstrip("/"), make(), lambda: make() if renew() else None)


async def open_to_read(url: str, *, endpoint: str = "") -> ObjectStore:
    """A store that answers now, and whose later requests are repeated for READ_PATIENCE. StartError when it cannot be
    read now."""
    try:
        await open_store(url, endpoint=endpoint, patience=FIRST_PATIENCE).check()
    except StoreError as error:
        raise StartError(str(error)) from error
    return open_store(url, endpoint=endpoint, patience=READ_PATIENCE)
