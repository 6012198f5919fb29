"""Archives of Kafka topics, made, verified and replayed by the programs, on a real Kafka."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from harness import archives
from harness.brokers import Broker
from harness.kafka import KafkaNode
from harness.shell import Shell
from harness.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
Row = tuple[bytes | None, tuple[tuple[str, bytes | None], ...], bytes | None]  # key, headers, body
ROWS: list[Row] = [
    (b"a", (), b"first"),
    (b"b", (("trace", b"1"), ("trace", b"\xff"), ("none", None)), b""),
    (b"gone", (), None),
    (None, (), "ä".encode()),
    (b"\xfe", (), b"last"),
]


@pytest.fixture
def url(kafka: str) -> str:
    return f"kafka://{kafka}"


@pytest.fixture
def make_topic(kafka: str) -> Callable[..., None]:
    admin = AdminClient({"bootstrap.servers": kafka})

    def make(name: str, partitions: int = 1) -> None:
        admin.create_topics([NewTopic(name, partitions, 1)])[name].result()

    return make


def produce(kafka: str, topic: str, rows: list[Row]) -> None:
    producer = Producer({"bootstrap.servers": kafka})
    for key, headers, body in rows:
        producer.produce(topic, body, key, partition=0, headers=list(headers))
    assert producer.flush(30) == 0


def rows_of(kafka: str, topic: str, count: int) -> list[Row]:
    """What is in partition 0 of `topic`, read with the client library alone."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "rows", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    found: list[Any] = []
    while len(found) < count:
        found += consumer.consume(count - len(found), 30)
        assert found, "nothing came"
    consumer.close()
    return [(each.key(), tuple(each.headers() or ()), each.value()) for each in found]


def archive(shell: Shell, source: str, output: str, *flags: str, status: int = 0) -> str:
    done = shell.run("q-to-file", source, "-o", output, "--until-empty", *flags, timeout=60)
    assert done.status == status, done.err
    return done.err


def verify(shell: Shell, output: Path, *flags: str) -> tuple[int, list[str]]:
    done = shell.run("q-to-file", "verify", output, "--deep", *flags)
    return done.status, done.out.decode().splitlines()


@pytest.mark.parametrize(
    ("format", "compression"), [("raw", "none"), ("length32", "gzip"), ("envelope", "zstd"), ("msgpack", "gzip")]
)
def test_empty_bodies_tombstones_keys_and_headers(
    shell: Shell, kafka: str, url: str, topic: str, tmp_path: Path, make_topic: Callable[..., None], format: str,
    compression: str,
) -> None:  # fmt: skip
    """raw and length32 have only bodies, and a tombstone is an empty body there."""
    make_topic(topic)
    produce(kafka, topic, ROWS)
    output = tmp_path / "archive"
    archive(shell, f"{url}/{topic}", str(output), "--format", format, "--compression", compression)
    status, lines = verify(shell, output)
    assert status == 0, lines
    assert lines[-1].startswith("all good: 1 file, 5 messages")
    (line,) = (output / "manifest.jsonl").read_text().splitlines()
    known = json.loads(line)
    assert (known["partition"], known["first_offset"], known["last_offset"], known["follows"]) == (0, 0, 4, -1)
    assert known["name"].startswith(f"{topic}.0.{0:020d}-{4:020d}.")
    make_topic(f"{topic}.again")
    done = shell.run("q-to-file", "replay", output, f"{url}/{topic}.again", timeout=60)
    assert done.status == 0, done.err
    keeps = format in ("envelope", "msgpack")
    assert rows_of(kafka, f"{topic}.again", 5) == (ROWS if keeps else [(None, (), body or b"") for _, _, body in ROWS])


def test_an_empty_body_is_not_for_nsq(
    shell: Shell, kafka: str, url: str, topic: str, tmp_path: Path, make_topic: Callable[..., None],
    make_broker: Callable[..., Broker],
) -> None:  # fmt: skip
    make_topic(topic)
    produce(kafka, topic, ROWS)
    output = tmp_path / "archive"
    archive(shell, f"{url}/{topic}", str(output))
    nsq = f"nsq://{make_broker().address}/copy"
    done = shell.run("q-to-file", "replay", output, nsq)
    assert done.status == 1
    assert "message 2 was not sent: it is empty, and NSQ has no empty messages" in done.err_lines[0]
    done = shell.run("q-to-file", "replay", output, nsq, "--on-oversize", "skip")
    assert done.status == 0, done.err
    found = shell.run("q-tail", f"{nsq}/own", "--until-empty", "-q")
    assert set(found.lines) == {b"first", "ä".encode(), b"last"}


def test_holes_of_the_log_are_no_gaps_and_what_is_lost_is_found(
    shell: Shell, kafka: str, url: str, topic: str, tmp_path: Path, make_topic: Callable[..., None]
) -> None:
    """Markers of transactions, and messages of aborted ones, have offsets, and are never read."""
    make_topic(topic)
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": topic})
    producer.init_transactions()
    for round_ in range(4):
        for is_kept in (True, False):
            producer.begin_transaction()
            for number in range(5):
                producer.produce(topic, b"%d %d %d" % (round_, number, is_kept), partition=0)
            producer.flush()  # else an abort would drop what was not sent yet
            producer.commit_transaction() if is_kept else producer.abort_transaction()
        archive(shell, f"{url}/{topic}", str(tmp_path))  # as cron does
    archive(shell, f"{url}/{topic}", str(tmp_path))
    assert sorted(archives.lines(tmp_path)) == [
        b"%d %d 1" % (round_, number) for round_ in range(4) for number in range(5)
    ]
    files = archives.finished(tmp_path)
    assert [path.name.split(".")[2] for path in files] == [f"{n:020d}-{n + 4:020d}" for n in (0, 12, 24, 36)]
    status, lines = verify(shell, tmp_path)
    assert (status, lines[-1][:33]) == (0, "all good: 4 files, 20 messages, 1")

    whole = {path.name: path.read_bytes() for path in files}
    manifest = (tmp_path / "manifest.jsonl").read_text().splitlines(keepends=True)
    files[2].unlink()
    status, lines = verify(shell, tmp_path)
    assert status == 1
    assert lines[3] == f"missing  {files[2].name}  is not there, with 5 messages"
    (tmp_path / "manifest.jsonl").write_text("".join(manifest[:2] + manifest[3:]))  # in a store each has its own
    status, lines = verify(shell, tmp_path)
    assert status == 1
    assert lines[3] == f"gap    {files[3].name}  partition 0: offsets 17 to 28 are in no file"
    (tmp_path / "manifest.jsonl").write_text("".join(manifest))
    files[2].write_bytes(whole[files[2].name][:-1])
    status, lines = verify(shell, tmp_path)
    assert (status, lines[3].split()[0]) == (1, "truncated")
    files[2].write_bytes(whole[files[2].name])
    twin = tmp_path / files[2].name.replace("24-", "23-")
    twin.write_bytes(files[2].read_bytes())
    known = json.loads(manifest[2]) | {"name": twin.name, "first_offset": 23, "ids_hash": "other"}
    (tmp_path / "manifest.jsonl").write_text("".join(manifest) + json.dumps(known) + "\n")
    status, lines = verify(shell, tmp_path)
    assert status == 1
    assert any(line.startswith("overlap") and "offsets 24 to 28 of partition 0 are also in" in line for line in lines)


@pytest.mark.parametrize("keeps_id", [True, False])
def test_a_topic_that_was_created_again(
    shell: Shell, kafka: str, url: str, topic: str, tmp_path: Path, make_topic: Callable[..., None], keeps_id: bool
) -> None:
    """Its id tells that; in an archive without ids, later timestamps at the same offsets do."""
    make_topic(topic)
    produce(kafka, topic, ROWS)
    archive(shell, f"{url}/{topic}", str(tmp_path))
    manifest = tmp_path / "manifest.jsonl"
    known = json.loads(manifest.read_bytes())
    assert len(known["topic_id"]) == 22
    if not keeps_id:
        del known["topic_id"]
        manifest.write_text(json.dumps(known) + "\n")
    admin = AdminClient({"bootstrap.servers": kafka})
    admin.delete_topics([topic])[topic].result()
    wait_until(lambda: topic not in admin.list_topics(timeout=10).topics, 30)
    make_topic(topic)
    if keeps_id:  # old messages, as after a restore
        hour_ago = int(time.time() * 1000) - 3_600_000  # not so old that the topic's retention deletes them
        producer = Producer({"bootstrap.servers": kafka})
        for number in range(9):
            producer.produce(topic, b"%d" % number, partition=0, timestamp=hour_ago + number)
        assert producer.flush(30) == 0
        why = "the archive has messages of another topic of that name: the topic was created again"
    else:
        produce(kafka, topic, ROWS)
        why = "the archive has other messages at the offsets 0 to 4"
    told = archive(shell, f"{url}/{topic}", str(tmp_path), status=1)
    assert f"{topic}, partition 0: {why}" in told
    assert "archive it to another place" in told
    assert "Traceback" not in told


@pytest.mark.parametrize("how", ["directory", "spooled", "unspooled"])
def test_another_group_archives_what_a_filter_left_out_at_last(
    shell: Shell, kafka: str, url: str, topic: str, tmp_path: Path, make_topic: Callable[..., None],
    request: pytest.FixtureRequest, how: str,
) -> None:  # fmt: skip
    """The message that the filter left out is the newest; the topic is still the same."""
    make_topic(topic)
    producer = Producer({"bootstrap.servers": kafka})
    hour_ago = int(time.time() * 1000) - 3_600_000
    for number in range(60):
        later = 1_000_000 if number == 50 else 0
        producer.produce(topic, b'{"n":%d}' % number, partition=0, timestamp=hour_ago + number + later)
    assert producer.flush(30) == 0
    environ: dict[str, str] = {}
    output, flags = str(tmp_path / "archive"), []
    if how != "directory":
        seaweed = request.getfixturevalue("seaweed")
        environ, output = seaweed.environ, f"s3://{seaweed.bucket()}/pre"
        flags = ["--s3-endpoint", seaweed.endpoint]
        flags += ["--no-spool"] if how == "unspooled" else ["--spool-dir", str(tmp_path / "spool")]
    words = ["--until-empty", "-o", output, *flags]
    first = shell.run("q-to-file", f"{url}/{topic}", *words, "--where", ".n != 50", environ=environ, timeout=60)
    assert first.status == 0, first.err
    second = shell.run("q-to-file", f"{url}/{topic}/other", *words, environ=environ, timeout=60)
    assert second.status == 0, second.err
    assert "archived 0 messages" in second.err
    assert "60 archived before" in second.err


@pytest.mark.parametrize("how", ["directory", "spooled", "unspooled"])
def test_a_member_that_sleeps_and_wakes_up(
    shell: Shell, make_kafka: Callable[..., list[KafkaNode]], request: pytest.FixtureRequest, tmp_path: Path, how: str
) -> None:
    """It is stopped while it archives, for longer than its session; another one takes its partitions meanwhile."""
    (node,) = make_kafka(1, {"group.min.session.timeout.ms": "500"})
    count = 30_000
    environ: dict[str, str] = {}
    output, flags = str(tmp_path / "archive"), []
    if how != "directory":
        seaweed = request.getfixturevalue("seaweed")
        bucket = seaweed.bucket()
        environ, output, flags = seaweed.environ, f"s3://{bucket}/pre", ["--s3-endpoint", seaweed.endpoint]
    (tmp_path / "lines").write_bytes(b"".join(b"%d\n" % number for number in range(1, count)))
    done = shell.run("q-pipe", "events", "-b", node.url, "--create-topics", "partitions=2", input=b"0\n")
    assert done.status == 0, done.err
    sender = shell.start("q-pipe", "events", tmp_path / "lines", "-b", node.url, "--rate", "1000", "-q")
    words = ["q-to-file", f"{node.url}/events", "-o", output, *flags, "--sync-interval", "50ms"]
    words += ["--engine-option", "session.timeout.ms=1500", "--engine-option", "heartbeat.interval.ms=300"]
    own = [
        ["--no-spool"] if how == "unspooled" else ["--work-dir", f"{tmp_path}/work-{nth}", "--rotate-count", "150"]
        for nth in range(2)
    ]
    if how == "spooled":
        own = [[*some, "--spool-dir", f"{tmp_path}/spool-{nth}"] for nth, some in enumerate(own)]
    running = [shell.start(*words, *some, environ=environ) for some in own]
    for nap in range(6):
        sleeper = running[nap % 2]
        with pytest.raises(AssertionError):
            wait_until(lambda: not sleeper.is_running, 1.2)  # noqa: B023 - called at once
        sleeper.signal(signal.SIGSTOP)
        with pytest.raises(AssertionError):
            wait_until(lambda: not sender.is_running, 3)
        sleeper.signal(signal.SIGCONT)
    assert sender.wait(120).status == 0
    for each in running:
        each.signal(signal.SIGTERM)
    for each in running:
        done = each.wait(60)
        assert done.status == 0, done.err
    for some in own:
        done = shell.run(*words, *some, "--until-empty", environ=environ, timeout=60)
        assert done.status == 0, done.err
    if how == "directory":
        found = Counter(archives.lines(tmp_path / "archive"))
    else:
        names = [name for name in seaweed.names(bucket) if name.endswith(".log")]
        found = Counter(line for name in names for line in seaweed.read(bucket, name).splitlines())
    assert len(found) == count
    assert found.total() == count
    done = shell.run("q-to-file", "verify", output, *flags, environ=environ)
    assert done.status == 0, done.out.decode()
    assert b"FOUND" not in done.out


def test_directories_by_time_are_marked_as_complete(
    shell: Shell, kafka: str, url: str, topic: str, tmp_path: Path, make_topic: Callable[..., None]
) -> None:
    make_topic(topic)
    produce(kafka, topic, [(None, (), b'{"at":%d}' % (1_795_507_200 + number % 3 * 3600)) for number in range(30)])
    output = tmp_path / "archive"
    flags = ["--partition-by", ".at", "--complete-marker", "--lateness", "1s"]
    archive(shell, f"{url}/{topic}", str(output), *flags)
    assert len(list(output.rglob("_SUCCESS"))) == 3
    names = {str(path.relative_to(output)) for path in archives.finished(output)}
    assert f"dt=2026-11-24/hour=09/{topic}.0.{1:020d}-{28:020d}.log" in names
    assert len(names) == 3
    done = shell.run("q-to-file", "verify", output)
    assert done.status == 0, done.out.decode()
    assert done.out.count(b"complete") == 3


def test_a_run_from_cron_goes_on_where_the_last_one_ended(
    shell: Shell, kafka: str, url: str, topic: str, tmp_path: Path, make_topic: Callable[..., None]
) -> None:
    """A message that a filter leaves out, and a run that finds nothing, make no file and no gap."""
    make_topic(topic)
    output = tmp_path / "archive"
    for first in range(0, 40, 10):
        produce(kafka, topic, [(None, (), b'{"n":%d}' % number) for number in range(first, first + 10)])
        for _ in range(2):
            archive(shell, f"{url}/{topic}", str(output), "--where", ".n % 10 > 3 and .n < 30", "--gzip")
    names = sorted(path.name.split(".")[2] for path in archives.finished(output))
    assert names == [f"{first + 4:020d}-{first + 9:020d}" for first in (0, 10, 20)]
    status, lines = verify(shell, output)
    assert (status, lines[-1][:33]) == (0, "all good: 3 files, 18 messages, 1")
