"""A whole file is in the store, once, under its name, or an error says in one line why not. Read back by boto3."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from harness.proxy import Proxy
from harness.seaweed import Seaweed
from harness.waiting import wait_until

from qtools.errors import InputError, ObjectDiffers, QtoolsError, StartError, StoreError, UsageError
from qtools.to_file.stores.digests import SINGLE_PUT, Digests, measure
from qtools.to_file.stores.object_store import ObjectStore, StoredObject
from qtools.to_file.stores.opening import open_store

from ..store_kinds import Bucket, Directory, Place, noise

NAME = "dt=2026-11-23/hour=08/events ü%20.log.gz"
LARGE = SINGLE_PUT + 3 * 1024 * 1024 + 1


async def listed(store: ObjectStore, below: str = "") -> list[StoredObject]:
    return sorted([entry async for chunk in store.list(below) for entry in chunk])


@pytest.fixture(params=[0, 5, 300_000, LARGE], ids=lambda size: f"{size}-bytes")
def content(request: pytest.FixtureRequest) -> bytes:
    return noise(request.param)


async def test_a_file_arrives_whole_and_once(place: Place, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    store = place.open()
    assert await store.put_new(NAME, tmp_path / "file") == "created"
    assert await store.put_new(NAME, tmp_path / "file") == "existed"
    assert place.names() == [NAME]
    assert place.read(NAME) == content
    assert (tmp_path / "file").read_bytes() == content


async def test_so_do_bytes(place: Place, content: bytes) -> None:
    store = place.open()
    assert await store.put_new("a/b", content) == "created"
    assert await store.put_new("a/b", content) == "existed"
    assert place.read("a/b") == content


@pytest.mark.parametrize("size", [1000, LARGE])
@pytest.mark.parametrize("other", ["shorter", "altered"])
async def test_other_contents_are_an_error_and_left_alone(place: Place, tmp_path: Path, size: int, other: str) -> None:
    there = noise(size)
    here = there[:-1] if other == "shorter" else there[:-1] + bytes([there[-1] ^ 1])
    place.write("a", there)
    (tmp_path / "file").write_bytes(here)
    with pytest.raises(ObjectDiffers) as caught:
        await place.open().put_new("a", tmp_path / "file")
    told = str(caught.value)
    assert told.startswith(f"{place.url}/a: is there already, with other contents: {size} bytes, ")
    assert f"{tmp_path}/file has {len(here)} bytes" in told
    assert caught.value.permanent
    assert place.read("a") == there


async def test_what_was_changed_while_it_was_measured_is_not_taken_for_whole(bucket: Bucket, tmp_path: Path) -> None:
    """The file is read twice: to be measured, and to be put."""
    (tmp_path / "file").write_bytes(noise(1000))
    store = bucket.open()
    measured = store._measure

    async def then_changed(name: str, content: Path | bytes, sha256: str) -> Digests:
        digests = await measured(name, content, sha256)
        (tmp_path / "file").write_bytes(noise(1000, seed=1))
        return digests

    store._measure = then_changed  # type: ignore[method-assign]
    with pytest.raises(ObjectDiffers):
        await store.put_new("a", tmp_path / "file")


async def test_what_another_program_put_in_other_parts_is_known_again(bucket: Bucket, tmp_path: Path) -> None:
    from boto3.s3.transfer import TransferConfig

    content = noise(LARGE)
    (tmp_path / "file").write_bytes(content)
    parts = TransferConfig(multipart_threshold=1, multipart_chunksize=6 * 1024 * 1024)
    bucket.server.client.upload_file(str(tmp_path / "file"), bucket.bucket, "pre/fix/a", Config=parts)
    tag = bucket.server.client.head_object(Bucket=bucket.bucket, Key="pre/fix/a")["ETag"]
    assert tag.endswith('-4"')  # of other sizes than ours
    assert await bucket.open().put_new("a", tmp_path / "file") == "existed"


async def test_an_upload_in_parts_is_confirmed_by_its_checksum_alone(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(noise(LARGE))
    store = bucket.open()
    store.stream = None  # type: ignore[assignment,method-assign]  # nothing is read back
    assert await store.put_new("a", tmp_path / "file") == "created"
    tag = bucket.server.client.head_object(Bucket=bucket.bucket, Key="pre/fix/a")["ETag"]
    assert tag == f'"{measure(tmp_path / "file").e_tag}"'


@pytest.mark.parametrize("size", [100_000, LARGE])
async def test_of_two_uploaders_at_once_one_object_stays(place: Place, tmp_path: Path, size: int) -> None:
    content = noise(size)
    (tmp_path / "file").write_bytes(content)
    stores = [place.open() for _ in range(4)]
    outcomes = await asyncio.gather(*(store.put_new("a/b", tmp_path / "file") for store in stores))
    assert "created" in outcomes
    if size <= SINGLE_PUT:
        assert outcomes.count("created") == 1
    assert place.names() == ["a/b"]
    assert place.read("a/b") == content


async def test_of_different_contents_at_once_one_wins_and_all_others_are_told(place: Place) -> None:
    contents = [b"one of many", b"and another", b"one of many", b"a third one"]
    store = place.open()
    outcomes = await asyncio.gather(*(store.put_new("a", each) for each in contents), return_exceptions=True)
    there = place.read("a")
    for each, outcome in zip(contents, outcomes, strict=True):
        if each == there:
            assert outcome in ("created", "existed")
        else:
            assert isinstance(outcome, ObjectDiffers)
    assert outcomes.count("created") == 1


async def test_a_file_that_was_changed_since_it_was_closed_is_not_put(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"altered")
    with pytest.raises(InputError, match="file was changed since it was closed: its sha256 was abc"):
        await place.open().put_new("a", tmp_path / "file", sha256="abc")
    assert not place.names()


async def test_a_file_that_is_not_there(place: Place, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot read .*/nothing: No such file or directory"):
        await place.open().put_new("a", tmp_path / "nothing")


async def test_it_lists_what_is_there_and_no_drafts(place: Place) -> None:
    store = place.open()
    for name in ("a", "dt=1/b", "dt=1/c/d", "dt=10/e", ".work/f", "dt=1/.g.draft"):
        place.write(name, b"12345")
    assert [(entry.name, entry.size) for entry in await listed(store)] == [
        ("a", 5), ("dt=1/b", 5), ("dt=1/c/d", 5), ("dt=10/e", 5),
    ]  # fmt: skip
    assert [entry.name for entry in await listed(store, "dt=1")] == ["dt=1/b", "dt=1/c/d"]
    assert await listed(store, "dt=2") == []


async def test_it_lists_more_than_one_answer_holds(place: Place) -> None:
    store = place.open()
    names = [f"{number:04}" for number in range(1100)]
    await asyncio.gather(*(store.put_new(name, b"x") for name in names[:1]))
    for name in names[1:]:
        place.write(name, b"x")
    assert [entry.name for entry in await listed(store)] == names


async def test_it_reads_from_any_byte_on(place: Place) -> None:
    content = noise(9_000_000)
    place.write("a", content)
    store = place.open()
    entry = await store.head("a")
    assert entry is not None
    assert entry.size == len(content)
    for offset in (0, 1, 4_194_304, 8_999_999, 9_000_000):
        blocks = [block async for block in store.stream(entry, offset)]
        assert b"".join(blocks) == content[offset:]
        assert all(blocks)
    assert await store.get(entry, 9_000_000) == content
    with pytest.raises(StoreError, match="a: has 9000000 bytes, at most 100 were expected"):
        await store.get(entry, 100)


async def test_what_is_replaced_while_it_is_read_is_an_error(place: Place) -> None:
    place.write("a", noise(12_000_000))
    store = place.open()
    entry = await store.head("a")
    assert entry is not None
    blocks = store.stream(entry)
    assert len(await anext(blocks)) == 4_194_304  # the next one is on its way
    place.remove("a")
    place.write("a", noise(12_000_000, seed=1))
    with pytest.raises(StoreError, match="a: was replaced while it was read"):
        [block async for block in blocks]


async def test_what_is_not_there(place: Place) -> None:
    store = place.open()
    assert await store.head("a") is None
    await store.delete("a")
    place.write("a", b"x")
    entry = await store.head("a")
    assert entry is not None
    await store.delete("a")
    with pytest.raises(StoreError, match="/a: is not there"):
        await store.get(entry, 1)
    assert place.names() == []


@pytest.mark.parametrize("name", ["", "/a", "../a", "a/../../b", "a//b", "./a", "a/", "a\0b"])
async def test_a_name_that_would_leave_its_place(place: Place, name: str) -> None:
    with pytest.raises(StoreError, match="is not a valid name of an object"):
        await place.open().put_new(name, b"x")


# ── what goes wrong ──


async def test_a_directory_is_made_private_to_nobody_but_whole(tmp_path: Path) -> None:
    directory = Directory(tmp_path / "new" / "archive")
    with pytest.raises(StartError, match=r"there is no directory .*/new/archive"):
        open_store(directory.url)
    await directory.open().put_new("a/b", b"x")
    assert directory.names() == ["a/b"]  # no draft is left
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StartError, match=r"there is no directory|cannot use"):
        open_store(str(tmp_path / "file"), create=True)


async def test_a_directory_where_nobody_may_write(tmp_path: Path) -> None:
    store = Directory(tmp_path / "archive").open()
    (tmp_path / "archive" / "a").write_bytes(b"")
    with pytest.raises(StoreError, match=r"archive/a/b: (Not a directory|File exists)") as caught:
        await store.put_new("a/b", b"x")
    assert not caught.value.permanent


@pytest.mark.parametrize(
    ("change", "told", "permanent"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            r"not take these credentials \(SignatureDoesNotMatch\): check AWS_ACC",
            True,
        ),
        ({"AWS_ACCESS_KEY_ID": "wrong"}, r"the store does not take these credentials \(InvalidAccessKeyId\)", True),
        ({"bucket": "no-such-bucket"}, "there is no such bucket: create it, or correct the name", True),
        ({"endpoint": "http://no-such-host.invalid:8333"}, "there is no host no-such-host.invalid: check the", True),
        ({"endpoint": "http://127.0.0.1:1"}, "127.0.0.1:1: connection refused", False),
    ],
)
async def test_what_is_wrong_is_one_line(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, change: dict[str, str], told: str, permanent: bool
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        if name in change:
            monkeypatch.setenv(name, change[name])
    url = f"s3://{change.get('bucket', bucket.bucket)}/pre"
    store = open_store(url, endpoint=change.get("endpoint", bucket.endpoint), patience=0.1)
    for ask in (store.put_new("a", b"x"), store.check()):
        with pytest.raises(StoreError, match=told) as caught:
            await ask
        assert caught.value.permanent == permanent
        assert "\n" not in str(caught.value)
        assert "wrong" not in str(caught.value)  # what was given is secret
    # An answer to HEAD has no body that says why.
    if "endpoint" not in change:
        told = "there is no such bucket|HEAD is denied .403.: the credentials are wrong, or lack the permission s3:GetO"
    with pytest.raises(StoreError, match=told):
        await store.put_new("a", noise(LARGE))


async def test_a_server_that_is_frozen(own_seaweed: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qtools.to_file.stores.obstore_client.REQUEST_TIMEOUT", 1.0)
    bucket = Bucket(own_seaweed, monkeypatch)
    store = bucket.open(patience=0.5)
    own_seaweed.freeze()
    with pytest.raises(StoreError, match=r"a: no answer from 127.0.0.1:\d+ within \d+ s") as caught:
        await store.put_new("a", b"x")
    assert not caught.value.permanent
    monkeypatch.undo()
    own_seaweed.thaw()
    for name, value in own_seaweed.environ.items():
        monkeypatch.setenv(name, value)
    assert await bucket.open(patience=30).put_new("b", b"x") == "created"


@pytest.mark.parametrize("size", [10_000_000, LARGE])
async def test_a_connection_that_is_cut_in_the_middle(
    bucket: Bucket, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = noise(size)
    port = int(bucket.endpoint.rpartition(":")[2])
    proxy = Proxy(port)
    try:
        store = open_store(bucket.url, endpoint=f"http://127.0.0.1:{proxy.port}", patience=0.1)
        putting = asyncio.create_task(store.put_new("a", content))
        await asyncio.to_thread(wait_until, lambda: len(proxy.said) > size // 2)
        proxy.refuse()
        with pytest.raises(StoreError) as caught:
            await putting
        assert not caught.value.permanent
        assert bucket.names() == []  # no half object is seen
        proxy.accept()
        assert await store.put_new("a", content) == "created"
        assert bucket.read("a") == content
    finally:
        proxy.close()


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://host/x", "is no place for an archive: s3://, gs://, az://, file:// or a directory"),
        ("s3://", "names no bucket: s3://BUCKET/PREFIX"),
        ("s3:///prefix", "names no bucket"),
        ("s3://bucket/a//b", "has a prefix with an empty part"),
        ("s3://bucket/../b", "has a prefix with an empty part"),
        ("file://relative/x", "is not absolute: file:///DIRECTORY"),
    ],
)
def test_a_url_that_is_none(url: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        open_store(url, create=True)


@pytest.mark.parametrize(
    "endpoint", ["nonsense", "host:1", "ftp://host", "http://", "http://h:x", "http://a b", "http://h\n"]
)
def test_an_endpoint_that_is_none(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="the S3 endpoint is not an address such as https://HOST:PORT"):
        open_store("s3://bucket", endpoint=endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(UsageError, match="the S3 endpoint is not an address such as https://HOST:PORT"):
        open_store("s3://bucket")


def test_an_endpoint_with_a_secret() -> None:
    with pytest.raises(UsageError, match="contains a user name or password") as caught:
        open_store("s3://bucket", endpoint="https://me:hidden@host")
    assert "hidden" not in str(caught.value)


def test_an_endpoint_is_for_s3_only(tmp_path: Path) -> None:
    for url in ("gs://bucket", str(tmp_path)):
        with pytest.raises(UsageError, match="an S3 endpoint goes with an s3:// URL only"):
            open_store(url, endpoint="http://127.0.0.1:1")


def test_what_the_other_stores_need_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(QtoolsError, match="az://container: no storage account is named: set AZURE_STORAGE_ACCOUNT_NA"):
        open_store("az://container/x")
