"""q-to-file replay: an archive goes back into a topic byte for byte, in order, and goes on after a kill."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from harness.brokers import Broker
from harness.seaweed import Seaweed
from harness.shell import Shell
from harness.waiting import wait_until
from to_file.spool import DAY, bodies, finish
from to_file.store_kinds import Bucket, Directory, Place

from qtools.to_file.archive.file_record import FileRecord
from qtools.to_file.sinks.upload import object_name, upload

pytestmark = pytest.mark.forks


@pytest.fixture(params=["s3", "directory"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "directory":
        return Directory(tmp_path / "archive")
    return Bucket(request.getfixturevalue("seaweed"), monkeypatch)


def put(place: Place, *files: FileRecord) -> None:
    async def run() -> None:
        store = place.open()
        for each in files:
            await upload(store, each)

    asyncio.run(run())


def words(place: Place, topic: str, broker: Broker) -> list[str]:
    endpoint = ["--s3-endpoint", place.endpoint] if place.endpoint else []
    return ["replay", place.url, topic, *endpoint, *broker.flags]


def environ(place: Place) -> dict[str, str]:
    return place.server.environ if isinstance(place, Bucket) else {}


@pytest.mark.parametrize("format", ["raw", "envelope", "msgpack", "length32"])
def test_byte_for_byte_and_in_order(
    shell: Shell, broker: Broker, topic: str, place: Place, tmp_path: Path, format: str
) -> None:
    kinds = ["none", "gzip", "zstd"]
    files = [
        finish(tmp_path, f"f{n}", list(range(n * 100, n * 100 + 80)), format=format, compression=kinds[n % 3],
               directory=f"hour={(5 - n) % 3}")
        for n in (4, 1, 3, 0, 2)
    ]  # fmt: skip
    put(place, *files)
    done = shell.run("q-to-file", *words(place, topic, broker), environ=environ(place))
    assert done.status == 0, done.err
    assert done.out == b""
    assert "400 messages (38.8 kB) in " in done.err
    assert done.err.rstrip().endswith(f"to {topic}; 5 files")
    expected = [body for n in range(5) for body in bodies(list(range(n * 100, n * 100 + 80)))]
    found = broker.bodies(topic)
    assert sorted(found) == expected
    if broker.kind == "q-broker":  # nsqd does not keep the order
        assert found == expected


def test_bodies_that_are_no_text(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    bodies = [b"\n", b"\0\xff\n\n", b"x" * 100_000, "ü".encode(), b"\r\n"]
    broker.create(topic, "archive")
    broker.fill(topic, bodies)
    tail = shell.run("q-tail", f"{topic}/archive", "-n", "5", "--format", "msgpack", *broker.flags)
    finished = FileRecord(
        tmp_path / "f", "f", topic, 5, sum(map(len, bodies)), len(tail.out), hashlib.sha256(tail.out).hexdigest(),
        DAY, DAY, "ab" * 16, "msgpack", "none",
    )  # fmt: skip
    (tmp_path / "f").write_bytes(tail.out)
    place = Directory(tmp_path / "archive")
    put(place, finished)
    again = f"{topic}.again"
    done = shell.run("q-to-file", *words(place, again, broker))
    assert done.status == 0, done.err
    assert sorted(broker.bodies(again)) == sorted(bodies)


@pytest.mark.parametrize("format", ["envelope", "raw"])
def test_since_and_until(shell: Shell, broker: Broker, topic: str, tmp_path: Path, format: str) -> None:
    place = Directory(tmp_path / "archive")
    put(place, *(finish(tmp_path, f"f{n}", list(range(n * 10, n * 10 + 10)), format=format) for n in range(6)))
    span = ["--since", "2026-11-24T08:00:15", "--until", str(DAY // 1_000_000_000 + 32)]
    done = shell.run("q-to-file", *words(place, topic, broker), *span)
    assert done.status == 0, done.err
    if format == "envelope":
        assert sorted(broker.bodies(topic)) == bodies(list(range(15, 32)))
        assert done.err.rstrip().endswith("3 files; 13 messages outside of the time span")
    else:  # whole files, as it keeps no timestamps
        assert sorted(broker.bodies(topic)) == bodies(list(range(10, 40)))
        assert done.err.rstrip().endswith("3 files")


def test_where_and_select(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    place = Directory(tmp_path / "archive")
    lines = [b'{"n":%d,"kind":"%s"}' % (n, b"even" if n % 2 == 0 else b"odd") for n in range(200)]
    content = b"".join(line + b"\n" for line in lines)
    (tmp_path / "f").write_bytes(content)
    finished = FileRecord(
        tmp_path / "f", "f", topic, 200, sum(map(len, lines)), len(content), hashlib.sha256(content).hexdigest(),
        DAY, DAY, "ab" * 16, "raw", "none",
    )  # fmt: skip
    put(place, finished)
    line = [*words(place, topic, broker), "--where", '.kind == "even"', "--checkpoint", "position"]
    replay = shell.start("q-to-file", *line, "--rate", "200")
    wait_until(lambda: broker.published(topic) >= 10)
    replay.signal(signal.SIGINT)
    assert replay.wait().status == -signal.SIGINT
    assert shell.run("q-to-file", *line, "--where", ".kind == 1").status == 2  # the checkpoint is another run's
    done = shell.run("q-to-file", *line)
    assert done.status == 0, done.err
    assert "did not match" in done.err
    assert sorted(broker.bodies(topic)) == sorted(lines[::2])  # each once
    done = shell.run("q-to-file", *words(place, topic, broker), "--where", ".n < 2", "--select", "{n}")
    assert done.status == 0, done.err
    assert sorted(broker.bodies(topic)) == [b'{"n":0}', b'{"n":1}']


def test_a_message_that_cannot_be_decided_is_named(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    place = Directory(tmp_path / "archive")
    put(place, finish(tmp_path, "f", [1, 2]))
    line = [*words(place, topic, broker), "--where", ".n"]
    done = shell.run("q-to-file", *line)
    assert done.status == 1
    assert ".jsonl.gz: message 1: it is not JSON (" in done.err
    assert broker.published(topic) == 0
    assert shell.run("q-to-file", *line, "--on-error", "pass").status == 0
    assert sorted(broker.bodies(topic)) == bodies([1, 2])


def test_rate(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    place = Directory(tmp_path / "archive")
    put(place, finish(tmp_path, "f", list(range(100))))
    replay = shell.start("q-to-file", *words(place, topic, broker), "--rate", "20")
    wait_until(lambda: broker.published(topic) >= 5)
    assert broker.published(topic) < 60
    replay.signal(signal.SIGINT)
    done = replay.wait()
    assert done.status == -signal.SIGINT
    assert done.err_lines[0] == "q-to-file replay: stopped by SIGINT before the end of the archive"
    count = broker.published(topic)
    assert done.err_lines[1] == (
        f"q-to-file replay: confirmed: {count} messages; with --checkpoint a next run would go on there"
    )


def test_a_stopped_one_goes_on_at_the_message(
    shell: Shell, broker: Broker, topic: str, place: Place, tmp_path: Path
) -> None:
    put(place, *(finish(tmp_path, f"f{n}", list(range(n * 30, n * 30 + 30))) for n in range(3)))
    line = [*words(place, topic, broker), "--checkpoint", "position"]
    replay = shell.start("q-to-file", *line, "--rate", "100", environ=environ(place))
    wait_until(lambda: broker.published(topic) >= 40)
    replay.signal(signal.SIGTERM)
    assert replay.wait().status == 1
    sent = broker.published(topic)
    assert sent < 90
    done = shell.run("q-to-file", *line, environ=environ(place))
    assert done.status == 0, done.err
    assert done.err_lines[0] == f"q-to-file replay: going on after the {sent} messages sent before"
    assert sorted(broker.bodies(topic)) == bodies(list(range(90)))  # each once
    put(place, finish(tmp_path, "late", list(range(500, 510))))
    assert shell.run("q-to-file", *line, environ=environ(place)).status == 0
    assert sorted(broker.bodies(topic)) == bodies(list(range(500, 510)))


def test_a_second_run_with_the_checkpoint_is_refused(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    place = Directory(tmp_path / "archive")
    put(place, finish(tmp_path, "f", list(range(300))))
    line = [*words(place, topic, broker), "--checkpoint", "position"]
    first = shell.start("q-to-file", *line, "--rate", "50")
    wait_until(lambda: broker.published(topic) > 0)
    second = shell.run("q-to-file", *line)
    assert second.status == 3
    assert f"the checkpoint position is in use by process {first.pid}: two runs" in second.err
    first.signal(signal.SIGKILL)
    first.wait()
    assert shell.run("q-to-file", *line).status == 0
    assert sorted(set(broker.bodies(topic))) == bodies(list(range(300)))


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_random_moments(
    shell: Shell, broker: Broker, topic: str, place: Place, tmp_path: Path, kills: int
) -> None:
    chance = random.Random(kills)
    each, files = 500 * kills // 4, 8
    put(place, *(finish(tmp_path, f"f{n}", list(range(n * each, (n + 1) * each))) for n in range(files)))
    line = [*words(place, topic, broker), "--checkpoint", "position"]
    killed = 0
    while killed < kills:
        before = broker.published(topic)
        replay = shell.start("q-to-file", *line, "--rate", "4000", environ=environ(place))
        aim = before + chance.randrange(each * files // kills)
        wait_until(lambda aim=aim, replay=replay: broker.published(topic) > aim or not replay.is_running)
        replay.signal(signal.SIGKILL)
        if replay.wait().status != -signal.SIGKILL:
            break  # it was faster
        killed += 1
    assert killed >= min(3, kills)
    done = shell.run("q-to-file", *line, environ=environ(place))
    assert done.status == 0, done.err
    count = Counter(broker.bodies(topic))
    assert sorted(count) == bodies(list(range(each * files)))  # nothing is left out
    assert sum(count.values()) - len(count) <= killed * 8 * 400  # a window of what --rate lets pass at once


def test_a_store_that_is_away_for_a_moment_is_waited_for(
    shell: Shell, broker: Broker, topic: str, own_seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Bucket(own_seaweed, monkeypatch)
    put(place, *(finish(tmp_path, f"f{n}", list(range(n * 20, n * 20 + 20))) for n in range(4)))
    replay = shell.start("q-to-file", *words(place, topic, broker), "--rate", "20", environ=environ(place))
    wait_until(lambda: broker.published(topic) >= 5)
    own_seaweed.kill()
    wait_until(lambda: broker.published(topic) >= 20)
    own_seaweed.start()
    done = replay.wait()
    assert done.status == 0, done.err
    assert sorted(broker.bodies(topic)) == bodies(list(range(80)))


def test_an_archive_that_is_not_whole_sends_nothing(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    place = Directory(tmp_path / "archive")
    one, two = finish(tmp_path, "a", [1, 2]), finish(tmp_path, "b", [100])
    put(place, one, two)
    content = place.read(object_name(two))
    place.remove(object_name(two))
    done = shell.run("q-to-file", *words(place, topic, broker))
    assert done.status == 1
    assert f"the archive is not whole: {object_name(two)} is missing (q-to-file verify lists all faults)" in done.err
    place.write(object_name(two), content[:-1])
    done = shell.run("q-to-file", *words(place, topic, broker))
    assert done.status == 1
    assert f"{object_name(two)} has {two.size - 1} bytes, had {two.size}" in done.err
    # What lies outside of the span does not matter.
    assert shell.run("q-to-file", *words(place, topic, broker), "--until", "2026-11-24T08:01").status == 0
    assert sorted(broker.bodies(topic)) == bodies([1, 2])


def test_a_file_that_was_altered_is_told(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    place = Directory(tmp_path / "archive")
    one = finish(tmp_path, "a", [1, 2], format="raw", compression="none")
    put(place, one)
    place.write(object_name(one), place.read(object_name(one)).replace(b"message", b"massage"))
    done = shell.run("q-to-file", *words(place, topic, broker))
    assert done.status == 1
    assert f"{object_name(one)} was altered: its sha256 is not what the manifest says" in done.err


def test_another_number_of_messages_than_were_archived(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path
) -> None:
    """In raw, a body with the delimiter in it is read as two."""
    place = Directory(tmp_path / "archive")
    file = replace(finish(tmp_path, "a", [1, 2, 3], format="raw", compression="none"), count=2)
    put(place, file, finish(tmp_path, "b", [4], format="raw"))
    done = shell.run("q-to-file", *words(place, topic, broker))
    assert done.status == 1
    assert f"{object_name(file)}: 3 messages were found in it, 2 put in" in done.err
    assert "1 file had another number of messages than the manifest says" in done.err_lines[-1]
    assert sorted(broker.bodies(topic)) == bodies([1, 2, 3, 4])


def test_several_topics_and_files_that_are_there_twice(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path
) -> None:
    place = Directory(tmp_path / "archive")
    put(
        place,
        finish(tmp_path, "a", [1, 2], topic="one"),
        finish(tmp_path, "b", [2, 1], topic="one", directory="dt=again", attempts=2),
        finish(tmp_path, "c", [3], topic="two"),
    )
    place.write("stray", b"x")
    done = shell.run("q-to-file", *words(place, topic, broker))
    assert done.status == 2
    assert "the archive has several topics, name one with --from-topic: one, two" in done.err
    done = shell.run("q-to-file", *words(place, topic, broker), "--from-topic", "three")
    assert (done.status, "the archive has no topic three: it has one, two" in done.err) == (2, True)
    done = shell.run("q-to-file", *words(place, topic, broker), "--from-topic", "one")
    assert done.status == 0
    assert "1 file in no manifest left out, among them stray" in done.err
    assert "1 file with the same messages as another left out" in done.err
    assert sorted(broker.bodies(topic)) == bodies([1, 2])


def test_a_message_that_is_too_large_is_named(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    place = Directory(tmp_path / "archive")
    put(place, finish(tmp_path, "a", [1], format="length32"), finish(tmp_path, "b", [2], size=600_000))
    put(place, finish(tmp_path, "c", [3]))
    done = shell.run("q-to-file", *words(place, topic, broker))
    assert done.status == 1
    assert ": message 1 was not sent: " in done.err
    assert "(--on-oversize skip leaves such messages out)" in done.err
    done = shell.run("q-to-file", *words(place, f"{topic}.2", broker), "--on-oversize", "skip")
    assert done.status == 0, done.err
    assert "1 message too big and left out" in done.err
    assert sorted(broker.bodies(f"{topic}.2")) == bodies([1, 3])


def test_the_checkpoint_of_another_run_is_refused(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    place = Directory(tmp_path / "archive")
    put(place, finish(tmp_path, "a", [1, 2]))
    line = [*words(place, topic, broker), "--checkpoint", "position"]
    assert shell.run("q-to-file", *line).status == 0
    done = shell.run("q-to-file", *line, "--since", "2026-11-24")
    assert done.status == 2
    assert "the checkpoint position is of another run (since was None): name another, or remove it" in done.err
    told = json.loads((shell.home / "position").read_text())
    (shell.home / "position").write_text(json.dumps(told | {"file": "gone"}))
    done = shell.run("q-to-file", *line)
    assert (
        done.status,
        "the checkpoint is in gone, which is not in the archive any more: remove the checkpoint" in done.err,
    ) == (2, True)
    (shell.home / "position").write_text("{}")
    done = shell.run("q-to-file", *line)
    assert (done.status, "position is not a checkpoint of q-to-file replay" in done.err) == (2, True)
    assert broker.published(topic) == 2


@pytest.mark.parametrize(
    ("more", "status", "told"),
    [
        (["--since", "yesterday"], 2, "'yesterday' is not a time such as 2026-11-23T08:00, 2026-11-23 or 1763884800"),
        (["--since", "2026-11-24", "--until", "2026-11-24"], 2, "--since is not before --until"),
        (["--s3-endpoint", "http://h"], 2, "an S3 endpoint goes with an s3:// URL only"),
        (["--checkpoint", "no/such"], 3, "cannot write the checkpoint no/such: the directory no does not exist"),
    ],
)
def test_wrong_words(
    shell: Shell, broker: Broker, topic: str, tmp_path: Path, more: list[str], status: int, told: str
) -> None:
    place = Directory(tmp_path / "archive")
    put(place, finish(tmp_path, "a", [1]))
    done = shell.run("q-to-file", *words(place, topic, broker), *more)
    assert (done.status, told in done.err) == (status, True), done.err
    assert len(done.err_lines) == 1
    assert broker.published(topic) == 0


def test_a_subcommand_comes_first(shell: Shell) -> None:
    done = shell.run("q-to-file", "--quiet", "replay", "archive", "topic")
    assert done.status == 2
    assert done.err.endswith("(write q-to-file replay before any flag)\n")


def test_nothing_to_replay(shell: Shell, broker: Broker, topic: str, tmp_path: Path) -> None:
    done = shell.run("q-to-file", "replay", tmp_path, topic, *broker.flags)
    assert (done.status, "there is nothing to replay: the archive has no files\n" in done.err) == (1, True)
    (tmp_path / "stray").write_bytes(b"x")
    done = shell.run("q-to-file", "replay", tmp_path, topic, *broker.flags)
    assert done.err.endswith("the archive has no files, only 1 file in no manifest\n")


def test_no_such_place(shell: Shell, broker: Broker, topic: str) -> None:
    done = shell.run("q-to-file", "replay", "/no/such/place", topic, *broker.flags)
    assert (done.status, done.err) == (3, "q-to-file replay: there is no directory /no/such/place\n")
