"""q-to-file into a real S3 server: from a spool or directly, whatever is killed meanwhile; read back by boto3."""

from __future__ import annotations

import gzip
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.producer import produce
from harness.seaweed import Seaweed
from harness.shell import Running, Shell
from harness.waiting import wait_until

from qtools.to_file.archive.compression import zstandard
from qtools.to_file.read.verify import Verifier, read_archive
from qtools.to_file.stores.opening import open_store

LINES = [b"%05d" % number for number in range(6000)]


class Bucket:
    """A bucket for one test, and the words that archive into it."""

    def __init__(self, server: Seaweed, spool: Path) -> None:
        self.server = server
        self.name = server.bucket()
        self.spool = spool
        self.url = f"s3://{self.name}/archive"

    @property
    def words(self) -> list[str | Path]:
        return ["-o", self.url, "--s3-endpoint", self.server.endpoint]

    @property
    def spooled(self) -> list[str | Path]:
        return [*self.words, "--spool-dir", self.spool]

    @property
    def objects(self) -> list[str]:
        return [name for name in self.server.names(self.name) if not name.endswith(".manifest.json")]

    def lines(self) -> list[bytes]:
        """The messages of all objects."""
        found: list[bytes] = []
        for name in self.objects:
            stored = self.server.read(self.name, name)
            data = gzip.decompress(stored) if name.endswith(".gz") else stored
            data = zstandard().decompress(stored) if name.endswith(".zst") else data
            found += data.split(b"\n")[:-1]
        return found

    async def verify(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in self.server.environ.items():
            monkeypatch.setenv(name, value)
        store = open_store(self.url, endpoint=self.server.endpoint)
        report = await Verifier(store, await read_archive(store), deep=True).run()
        assert report.findings == []

    def in_spool(self) -> list[str]:
        return sorted(path.name for path in self.spool.rglob("*") if path.is_file() and path.name != "lock")


@pytest.fixture
def bucket(seaweed: Seaweed, shell: Shell, tmp_path: Path) -> Bucket:
    shell.environ |= seaweed.environ
    return Bucket(seaweed, tmp_path / "spool")


@pytest.fixture
def own_bucket(own_seaweed: Seaweed, shell: Shell, tmp_path: Path) -> Bucket:
    shell.environ |= own_seaweed.environ
    return Bucket(own_seaweed, tmp_path / "spool")


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
async def test_spooled_all_of_it_is_there_and_the_spool_empty(
    shell: Shell, broker: Broker, topic: str, bucket: Bucket, compression: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.fill(topic, LINES)
    words = ["--until-empty", "--compression", compression, "--rotate-count", "2000"]
    done = shell.run("q-to-file", f"{topic}/me", *bucket.spooled, *words, *broker.flags)
    assert done.status == 0
    assert f"; {len(bucket.objects)} uploaded" in done.err
    assert sorted(bucket.lines()) == LINES
    assert len(bucket.objects) >= 2
    assert bucket.in_spool() == []
    assert broker.depth(topic, "me").held == 0
    await bucket.verify(monkeypatch)


async def test_without_a_spool_each_sync_is_an_object(
    shell: Shell, broker: Broker, topic: str, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.fill(topic, LINES)
    words = ["--until-empty", "--gzip", "--no-spool", "--partition-format", "%Y/%m", "--sync-interval", "200ms"]
    done = shell.run("q-to-file", f"{topic}/me", *bucket.words, *words, *broker.flags)
    assert done.status == 0
    assert f"; {len(bucket.objects)} objects" in done.err
    assert sorted(bucket.lines()) == LINES
    assert all(name.startswith("archive/2") for name in bucket.objects)
    assert broker.depth(topic, "me").held == 0
    await bucket.verify(monkeypatch)


def test_a_place_of_its_own_to_spool_is_found(shell: Shell, broker: Broker, topic: str, bucket: Bucket) -> None:
    broker.fill(topic, LINES[:10])
    done = shell.run("q-to-file", f"{topic}/me", *bucket.words, "--until-empty", *broker.flags)
    assert done.status == 0
    (spool,) = (shell.home / "state" / "qtools" / "spool").iterdir()
    assert spool.name.startswith(f"s3-{bucket.name}-archive-")
    assert sorted(bucket.lines()) == LINES[:10]


@pytest.mark.parametrize("mode", ["spooled", "direct"])
def test_what_cannot_work_is_said_at_the_start(shell: Shell, bucket: Bucket, mode: str) -> None:
    how = ["--no-spool"] if mode == "direct" else ["--spool-dir", bucket.spool]
    words = ["x/me", "--s3-endpoint", bucket.server.endpoint, *how, "--nsqd", "127.0.0.1:1"]
    wrong = shell.run("q-to-file", *words, "-o", bucket.url, environ={"AWS_SECRET_ACCESS_KEY": "another-secret"})
    assert (wrong.status, len(wrong.err_lines)) == (3, 1)
    assert "another-secret" not in wrong.err
    missing = shell.run("q-to-file", *words, "-o", "s3://there-is-none/x")
    assert (missing.status, len(missing.err_lines)) == (3, 1)
    assert "there-is-none" in missing.err


def kill_and_count(
    shell: Shell, broker: Broker, topic: str, bucket: Bucket, how: list[str | Path], count: int, kills: int
) -> Counter[bytes]:
    """How often each message is in the bucket, after `kills` runs were killed while `count` messages flowed."""
    draw = random.Random(kills)
    broker.create(topic, "me")
    producer = produce(broker, topic, count, kills * 0.6, shell.home / "producer")
    words = [f"{topic}/me", *how, "--msg-timeout", "1s", "--sync-interval", "50ms", *broker.flags]
    try:
        for _ in range(kills):
            running = shell.start("q-to-file", *words, "-q")
            broker.wait_clients(topic, "me")
            time.sleep(draw.uniform(0.0, 0.4))  # the moment is what the test is about
            running.signal(signal.SIGKILL)
            done = running.wait()
            assert (done.status, done.err) == (-signal.SIGKILL, "")
            broker.wait_clients(topic, "me", 0)
        assert producer.wait(120) == 0
    finally:
        producer.kill()
        producer.wait()
    done = shell.run("q-to-file", *words, "--until-empty", "-q", timeout=120)
    assert (done.status, done.err) == (0, "")
    assert broker.depth(topic, "me").held == 0
    return Counter(bucket.lines())


SPOOLED = ["--rotate-count", "500"]


@pytest.mark.parametrize("mode", ["spooled", "direct"])
async def test_killed_again_and_again_nothing_is_lost(
    shell: Shell, broker: Broker, topic: str, bucket: Bucket, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = [*bucket.words, "--no-spool"] if mode == "direct" else [*bucket.spooled, *SPOOLED]
    found = kill_and_count(shell, broker, topic, bucket, how, 15_000, 4)
    assert len(found) == 15_000
    assert found.total() - 15_000 <= 4 * 2500
    if mode == "spooled":
        assert bucket.in_spool() == []
    await bucket.verify(monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("mode", ["spooled", "direct"])
async def test_killed_fifty_times(
    shell: Shell,
    broker: Broker,
    topic: str,
    bucket: Bucket,
    mode: str,
    compression: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    how = [*bucket.words, "--no-spool"] if mode == "direct" else [*bucket.spooled, "--rotate-count", "5000"]
    found = kill_and_count(shell, broker, topic, bucket, [*how, "--compression", compression], 500_000, 50)
    told = f"{len(found):,} messages, {found.total() - len(found):,} delivered twice, {len(bucket.objects)} objects"
    print(f"{mode}, {compression}: 50 kills, {told}")
    assert len(found) == 500_000
    await bucket.verify(monkeypatch)


def started(shell: Shell, broker: Broker, topic: str, how: list[str | Path]) -> Running:
    running = shell.start(
        "q-to-file", f"{topic}/me", *how, "--msg-timeout", "1s", "--sync-interval", "50ms", *broker.flags
    )
    broker.wait_clients(topic, "me")
    return running


def test_a_store_that_is_away_stops_nothing_with_a_spool(
    shell: Shell, broker: Broker, topic: str, own_bucket: Bucket
) -> None:
    running = started(shell, broker, topic, [*own_bucket.spooled, "--rotate-count", "100"])
    own_bucket.server.kill()
    broker.fill(topic, LINES)
    wait_until(lambda: broker.depth(topic, "me").held == 0)
    running.wait_err("trying again")
    assert own_bucket.in_spool() != []
    own_bucket.server.start()
    running.wait_err("uploads work again")
    running.signal(signal.SIGHUP)
    wait_until(lambda: own_bucket.in_spool() == [])
    running.signal(signal.SIGTERM)
    assert running.wait(15).status == 0
    assert sorted(own_bucket.lines()) == LINES


def test_a_store_that_is_away_pauses_without_a_spool(
    shell: Shell, broker: Broker, topic: str, own_bucket: Bucket
) -> None:
    running = started(shell, broker, topic, [*own_bucket.words, "--no-spool"])
    own_bucket.server.kill()
    broker.fill(topic, LINES[:100])
    running.wait_err("nothing is acknowledged until that is over")
    held = broker.depth(topic, "me")
    assert (held.held, held.timed_out) == (100, 0)
    own_bucket.server.start()
    running.wait_err("writing again, after ")
    wait_until(lambda: broker.depth(topic, "me").held == 0)
    running.signal(signal.SIGTERM)
    assert running.wait(15).status == 0
    assert sorted(set(own_bucket.lines())) == LINES[:100]


# ── credentials that change ──


@pytest.mark.parametrize("mode", ["spooled", "direct"])
async def test_a_key_that_is_rotated_in_mid_run_is_read_again(
    shell: Shell,
    broker: Broker,
    topic: str,
    seaweed: Seaweed,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    """The profile has a new key before the old one is taken away, then another one after."""
    user = f"user-{random.randrange(10**9)}"
    profile = tmp_path / "credentials"

    def tell(nth: int) -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text(f"[default]\naws_access_key_id = {user}-{nth}\naws_secret_access_key = secret-secret-{nth}\n")
        fresh.replace(profile)

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        shell.environ.pop(name, None)
    shell.environ |= {"AWS_SHARED_CREDENTIALS_FILE": str(profile), "AWS_REGION": "us-east-1"}
    bucket = Bucket(seaweed, tmp_path / "spool")
    seaweed.add_keys(user, {f"{user}-{nth}": f"secret-secret-{nth}" for nth in range(3)})
    tell(0)
    broker.create(topic, "me")
    how = [*bucket.spooled, "--rotate-count", "1"] if mode == "spooled" else [*bucket.words, "--no-spool"]
    words = [*how, "--sync-interval", "50ms", *broker.flags]
    running = shell.start("q-to-file", f"{topic}/me", *words)
    broker.fill(topic, LINES[:500])
    wait_until(lambda: len(bucket.lines()) == 500, what=lambda: running.err)
    for nth, late in ((1, False), (2, True)):
        if not late:
            tell(nth)
        seaweed.remove_key(user, f"{user}-{nth - 1}", f"secret-secret-{nth - 1}")
        broker.fill(topic, LINES[500 * nth : 500 * (nth + 1)])
        if late:
            running.wait_err("InvalidAccessKeyId")
            tell(nth)
        wait_until(lambda nth=nth: len(bucket.lines()) >= 500 * (nth + 1))  # type: ignore[misc]
    wait_until(lambda: broker.depth(topic, "me").held == 0)
    running.signal(signal.SIGTERM)
    done = running.wait(20)
    assert done.status == 0, done.err
    assert done.err.count("the store denied the credentials: read again") == 2
    assert Counter(bucket.lines()) == Counter(LINES[:1500])
    assert "secret-secret" not in done.err
    if mode == "spooled":
        assert [name for name in bucket.in_spool() if name != "lock"] == []
    await bucket.verify(monkeypatch)
