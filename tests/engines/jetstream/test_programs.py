"""The programs with JetStream: what a user sees."""

from __future__ import annotations

from harness.nats import NatsServer
from harness.shell import Shell

from tests.engines.jetstream.using import streams


async def test_ids_by_which_the_server_finds_duplicates(nats_server: NatsServer, topic: str, shell: Shell) -> None:
    """A run that is repeated stores nothing twice; a bridge neither."""
    lines = b"".join(b'{"id":%d}\n' % number for number in range(100))
    url = f"nats://{nats_server.address}"
    for _ in range(2):
        done = shell.run("q-pipe", f"{url}/{topic}", "--create-topics", "default", "--dedupe-id", ".id", input=lines)
        assert (done.status, done.out) == (0, b""), done.err
    for channel in ("one", "two"):
        done = shell.run(
            "q-bridge", f"{url}/{topic}/{channel}", "--to", f"{url}/{topic}-copy", "--create-topics", "default",
            "--dedupe-id", '"copy-\\(.id)"', "--until-empty",
        )  # fmt: skip
        assert done.status == 0, done.err
    async with streams(nats_server) as api:
        for stream in (topic, f"{topic}-copy"):
            assert (await api.stream_info(stream)).state.messages == 100


def test_an_engine_without_ids(shell: Shell) -> None:
    done = shell.run("q-pipe", "t", "-b", "nsq://127.0.0.1:1", "--dedupe-id", ".id", input=b"")
    assert (done.status, done.out) == (2, b"")
    assert b"--dedupe-id: NSQ does not find duplicates by ids: leave the flag out" in done.err.encode()


def test_a_subject_without_a_stream_names_the_flag_that_makes_one(
    nats_server: NatsServer, topic: str, shell: Shell
) -> None:
    url = f"nats://{nats_server.address}/{topic}"
    done = shell.run("q-pipe", url, input=b"a\n")
    assert (done.status, done.out) == (3, b"")
    assert done.err == (
        f"q-pipe: {topic}: no stream on {nats_server.address} stores this subject:"
        " use --create-topics default to create one\n"
    )
    done = shell.run("q-pipe", url, "--create-topics", "default", "--engine-option", "stream_max_msgs=3", input=b"a\n")
    assert done.status == 0, done.err
    done = shell.run("q-tail", url, "--since", "all", "-n", "1")
    assert (done.status, done.out) == (0, b"a\n")


def test_everything_from_nsq_and_back(nats_server: NatsServer, topic: str, shell: Shell) -> None:
    """Bodies with every byte value, byte for byte, over the private broker."""
    bodies = [bytes([number]) * 3 for number in range(256)]
    packed = b"".join(len(body).to_bytes(4, "big") + body for body in bodies)
    url = f"nats://{nats_server.address}/{topic}"
    done = shell.run("q-pipe", url, "--create-topics", "default", "--format", "length32", input=packed)
    assert done.status == 0, done.err
    done = shell.run("q-bridge", f"{url}/out", "--to", topic, "--to-broker", "local", "--until-empty")
    assert done.status == 0, done.err
    done = shell.run("q-tail", f"{topic}/own", "-b", "local", "--until-empty", "--format", "length32")
    assert done.status == 0, done.err
    assert done.out == packed
    shell.run("q-broker", "stop")
