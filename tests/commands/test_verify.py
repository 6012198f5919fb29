"""q-to-file verify: exit status 0 or 1, and a table that says what is wrong with which file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import pytest
from harness.seaweed import Seaweed
from harness.shell import Shell
from harness.waiting import wait_until
from to_file.spool import finish
from to_file.store_kinds import Bucket, Directory, Place

from qtools.to_file.archive.file_record import FileRecord
from qtools.to_file.archive.manifest import mark_complete
from qtools.to_file.sinks.upload import object_name, upload

pytestmark = pytest.mark.forks


def put(place: Place, *files: FileRecord) -> None:
    async def run() -> None:
        store = place.open()
        for each in files:
            await upload(store, each)

    asyncio.run(run())


def test_a_good_archive_is_a_row_a_directory(shell: Shell, tmp_path: Path) -> None:
    place = Directory(tmp_path / "archive")
    put(
        place,
        *(finish(tmp_path, f"f{n}", list(range(n * 10, n * 10 + 9)), directory=f"hour={n % 2}") for n in range(3)),
    )
    asyncio.run(mark_complete(place.open(), "hour=0"))
    done = shell.run("q-to-file", "verify", place.root)
    assert (done.status, done.err) == (0, "")
    head, zero, one, last = done.out.decode().splitlines()
    assert head.split() == ["DIRECTORY", "FILES", "MESSAGES", "SIZE"]
    assert zero.split()[:3] == ["hour=0", "2", "18"]
    assert zero.split()[-1] == "complete"
    assert one.split()[:3] == ["hour=1", "1", "9"]
    assert last.startswith("all good: 3 files, 27 messages, ")
    assert shell.run("qtools", "to-file", "verify", place.root, "--deep").out == done.out


def test_quiet_prints_nothing_when_all_is_good(shell: Shell, tmp_path: Path) -> None:
    """cron sends a mail for what a job prints."""
    place = Directory(tmp_path / "archive")
    (tmp_path / "spool").mkdir()
    files = [finish(tmp_path / "spool", f"f{n}", [n]) for n in range(2)]
    put(place, *files)
    done = shell.run("q-to-file", "verify", place.root, "--quiet")
    assert (done.status, done.out, done.err) == (0, b"", "")
    place.remove(object_name(files[0]))
    done = shell.run("q-to-file", "verify", place.root, "--quiet")
    assert (done.status, done.err) == (1, "")
    assert done.out == shell.run("q-to-file", "verify", place.root).out
    assert b"missing" in done.out


def test_what_is_wrong_is_a_row_a_file(shell: Shell, tmp_path: Path) -> None:
    place = Directory(tmp_path / "archive")
    files = [finish(tmp_path, f"f{n}", [n], compression="none") for n in range(4)]
    put(place, *files)
    gone, short, other, _ = map(object_name, files)
    place.remove(gone)
    place.write(short, b"")
    place.write(other, place.read(other).replace(b"message", b"massage"))
    place.write("dt=2026-11-24/st\x1b[31mray", b"")
    done = shell.run("q-to-file", "verify", place.url)
    assert (done.status, done.err) == (1, "")
    lines = done.out.decode().splitlines()
    assert lines[-1].startswith("not as it should be: 4 files; good: 1 file, 1 message, ")
    table = {line.split()[1]: line.split(maxsplit=2) for line in lines[3:-1]}
    assert table[gone][0::2] == ["missing", "is not there, with 1 message"]
    assert table[short][0::2] == ["truncated", f"has 0 bytes, had {files[1].size}"]
    assert table[other][0] == "altered"
    assert table["dt=2026-11-24/st\N{REPLACEMENT CHARACTER}[31mray"][0::2] == [
        "unlisted", "is there, and in no manifest",
    ]  # fmt: skip


def test_a_place_without_files_is_not_good(shell: Shell, tmp_path: Path) -> None:
    """A wrong prefix looks just so."""
    done = shell.run("q-to-file", "verify", tmp_path)
    assert (done.status, done.out) == (1, b"")
    assert done.err == f"q-to-file verify: {tmp_path} has no files: nothing was checked\n"


def test_json_for_programs(shell: Shell, tmp_path: Path) -> None:
    place = Directory(tmp_path / "archive")
    one, two = finish(tmp_path, "a", [1, 2, 3]), finish(tmp_path, "b", [3, 4])
    put(place, one, two)
    words = ["verify", place.url, "--deep", "--json"]
    done = shell.run("q-to-file", *words)
    assert done.status == 0
    again, whole = map(json.loads, done.lines)
    assert again == {
        "name": object_name(two), "kind": "again", "told": f"1 message is also in {object_name(one)}",
    }  # fmt: skip
    assert whole == {
        "files": 2, "messages": 5, "bytes": one.bytes + two.bytes, "size": one.size + two.size, "again": 1,
        "findings": 0,
    }  # fmt: skip
    assert shell.run("q-to-file", *words, "--fail-on-duplicates").status == 1


@pytest.mark.parametrize("subcommand", ["verify", "replay"])
def test_help_is_the_manual(shell: Shell, subcommand: str) -> None:
    done = shell.run("q-to-file", subcommand, "--help", environ={"COLUMNS": "100"})
    assert (done.status, done.err) == (0, "")
    lines = done.out.decode().splitlines()
    assert lines[0].startswith(f"Usage: q-to-file {subcommand} [OPTIONS] URL")
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith(f"    q-to-file {subcommand} ") for line in lines) >= 3  # examples


def test_a_bucket(shell: Shell, seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Bucket(seaweed, monkeypatch)
    one = finish(tmp_path, "a", [1, 2, 3])
    put(place, one)
    words = ["verify", place.url, "--s3-endpoint", place.endpoint]
    assert shell.run("q-to-file", *words, environ=seaweed.environ).status == 0
    place.write(object_name(one), b"x" * one.size)
    done = shell.run("q-to-file", *words, environ=seaweed.environ)
    assert (done.status, b"altered" in done.out) == (1, True)


def test_credentials_from_a_profile(
    shell: Shell, seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Bucket(seaweed, monkeypatch)
    put(place, finish(tmp_path, "a", [1]))
    key, secret = seaweed.environ["AWS_ACCESS_KEY_ID"], seaweed.environ["AWS_SECRET_ACCESS_KEY"]
    (shell.home / ".aws").mkdir()
    (shell.home / ".aws" / "credentials").write_text(
        f"[default]\naws_access_key_id = wrong\naws_secret_access_key = wr%ong\n"
        f"[work]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    )
    (shell.home / ".aws" / "config").write_text(
        f"[profile work]\nregion = us-east-1\nendpoint_url = {seaweed.endpoint}\n"
    )
    assert shell.run("q-to-file", "verify", place.url, environ={"AWS_PROFILE": "work"}).status == 0
    done = shell.run("q-to-file", "verify", place.url, "--s3-endpoint", place.endpoint)
    assert done.status == 3
    assert done.err == (
        f"q-to-file verify: {place.url}: the store does not take these credentials (InvalidAccessKeyId): check"
        " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the profile\n"
    )
    done = shell.run("q-to-file", "verify", place.url, environ={"AWS_PROFILE": "none"})
    assert done.status == 3
    assert "there is no profile 'none' (AWS_PROFILE) in " in done.err
    (shell.home / ".aws" / "credentials").write_text("aws_secret_access_key = hidden\n")
    done = shell.run("q-to-file", "verify", place.url)
    assert done.status == 3
    assert "is not a valid file of profiles" in done.err
    assert "hidden" not in done.err


def test_a_profile_that_needs_boto3(
    shell: Shell, seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Bucket(seaweed, monkeypatch)
    put(place, finish(tmp_path, "a", [1]))
    keys = {
        "Version": 1, "AccessKeyId": seaweed.environ["AWS_ACCESS_KEY_ID"],
        "SecretAccessKey": seaweed.environ["AWS_SECRET_ACCESS_KEY"],
    }  # fmt: skip
    (shell.home / "keys").write_text(json.dumps(keys))
    (shell.home / ".aws").mkdir()
    (shell.home / ".aws" / "config").write_text(
        f"[profile asked]\ncredential_process = cat {shell.home}/keys\nendpoint_url = {seaweed.endpoint}\n"
    )
    words = ["verify", place.url]
    done = shell.run("q-to-file", *words, environ={"AWS_PROFILE": "asked", "AWS_REGION": "us-east-1"})
    assert done.status == 0, done.err
    (shell.home / "none").mkdir()
    (shell.home / "none" / "boto3.py").write_text("raise ImportError")
    python = f"{shell.home}/none:{shell.environ['PYTHONPATH']}"
    done = shell.run("q-to-file", *words, environ={"AWS_PROFILE": "asked", "PYTHONPATH": python})
    assert done.status == 3
    assert done.err == (
        "q-to-file verify: the profile 'asked' has credential_process, for which boto3 is needed: pip install boto3,"
        " or use a profile with keys\n"
    )


def test_no_credentials_at_all(shell: Shell, seaweed: Seaweed) -> None:
    done = shell.run(
        "q-to-file", "verify", "s3://bucket", "--s3-endpoint", seaweed.endpoint,
        # Instance metadata is asked last; nobody is there.
        environ={"AWS_METADATA_ENDPOINT": "http://169.254.0.1:1", "NO_PROXY": "*"}, timeout=100,
    )  # fmt: skip
    assert done.status == 3
    assert "s3://bucket: there are no credentials: neither in the environment (AWS_ACCESS_KEY_ID and" in done.err
    assert len(done.err_lines) == 1


def has_tcp_socket(pid: int) -> bool:
    """Whether the process has an IPv4 TCP socket. The event loop's own sockets are no sign that it has got far."""
    sockets = {f"socket:[{line.split()[9]}]" for line in Path("/proc/net/tcp").read_text().splitlines()[1:]}
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it may be closed by now
            if os.readlink(descriptor) in sockets:
                return True
    return False


def test_a_signal_ends_it(shell: Shell, own_seaweed: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Bucket(own_seaweed, monkeypatch)
    put(place, finish(tmp_path, "a", [1]))
    own_seaweed.freeze()
    words = ["verify", place.url, "--s3-endpoint", place.endpoint]
    check = shell.start("q-to-file", *words, environ=own_seaweed.environ)
    wait_until(lambda: has_tcp_socket(check.pid))
    check.signal(signal.SIGINT)
    done = check.wait(5)
    assert (done.status, done.err) == (
        -signal.SIGINT,
        "q-to-file verify: stopped by SIGINT before the end of the archive\n",
    )


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["/no/such/place"], 3, "there is no directory /no/such/place"),
        (["ftp://host"], 2, "'ftp://host' is no place for an archive: s3://, gs://, az://, file:// or a directory"),
        ([], 2, "missing argument 'URL'"),
        ([".", "--fail-on-duplicates"], 2, "--fail-on-duplicates needs --deep"),
        (["s3://bucket", "--s3-endpoint", "host:80"], 2, "the S3 endpoint is not an address such as https://HOST:PORT"),
    ],
)
def test_wrong_words(shell: Shell, words: list[str], status: int, told: str) -> None:
    done = shell.run("q-to-file", "verify", *words)
    assert (done.status, len(done.err_lines)) == (status, 1)
    assert done.err.startswith(f"q-to-file verify: {told}")


def test_a_signal_while_the_report_waits_for_its_reader(shell: Shell, tmp_path: Path) -> None:
    """As in `q-to-file verify DIRECTORY | less`."""
    place = Directory(tmp_path / "archive")
    put(place, finish(tmp_path, "f", [1]))
    for number in range(1500):
        place.write(f"stray-{number:06}-{'x' * 60}", b"")
    reading, writing = os.pipe()
    check = shell.start("q-to-file", "verify", place.root, stdout=writing)
    os.close(writing)
    os.read(reading, 1)
    check.signal(signal.SIGTERM)
    done = check.wait(10)
    os.close(reading)
    assert (done.status, done.err) == (
        1,
        "q-to-file verify: stopped by SIGTERM before the report was written\n",
    )
