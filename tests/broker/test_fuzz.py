"""Whatever comes, the broker goes on: it answers, its memory stays where it was, and it has no defect to report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from pathlib import Path

import httpx
import pytest
from harness.certificates import Certificates

from .inside import Peer, pub
from .mutations import Input, make
from .running import Running, running

SEED = 20261125
AT_ONCE = 24
SWEEP = 1000  # inputs between two moments at which everything they made is deleted
GROWTH = 24 * 1024 * 1024  # bytes that the process may have more than after the first sweeps
PATIENCE = 20.0

Place = tuple[str, int]


def resident(broker: Running) -> int:
    return int(Path(f"/proc/{broker.process.pid}/statm").read_text().split()[1]) * 4096


async def play(what: Input, place: Place) -> None:
    """Send it, say that this is all, and hear the broker out."""
    reader, writer = await asyncio.open_connection(*place)
    ids: list[bytes] = []

    def ident(found: re.Match[bytes]) -> bytes:
        return ids[int(found[1]) % len(ids)] if ids else b"0" * 16

    try:
        for step in what.steps:
            writer.write(re.sub(rb"\{id(\d)\}", ident, step))
            if what.live:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        ids += re.findall(rb"[0-9a-f]{16}", await reader.read(1 << 16))
        writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            while await reader.read(1 << 16):
                pass
    except TimeoutError:
        raise
    except OSError:
        pass  # it was hung up on, which it may be at any moment
    finally:
        await let_go(writer)


async def let_go(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def still_works(broker: Running) -> None:
    """A message goes in and comes out; then everything is deleted."""
    url = "http://{}:{}".format(*broker.http)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:
        assert (await client.get("/ping")).text == "OK"
        reader, writer = await asyncio.open_connection(*broker.tcp)
        peer = Peer(reader, writer)
        peer.say(b"  V2SUB still works\nRDY 1\n" + pub("still", b"works"))
        assert [await peer.answer(), await peer.answer()] == [b"OK", b"OK"]
        message = await peer.message()
        assert message.body == b"works"
        peer.say(b"FIN %b\n" % message.id)
        await peer.close()
        for topic in (await client.get("/stats?format=json&include_clients=false")).json()["topics"]:
            assert (await client.post("/topic/delete", params={"topic": topic["topic_name"]})).status_code == 200


async def abuse(broker: Running, numbers: range) -> None:
    places = {"tcp": broker.tcp, "http": broker.http}
    rest = iter(numbers)

    async def one_after_the_other() -> None:
        for number in rest:
            what = make(SEED, number)
            try:
                await play(what, places[what.to])
            except Exception as error:
                raise AssertionError(f"input {number} of seed {SEED}: {error!r}") from error

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))


@pytest.mark.parametrize(
    "inputs", [pytest.param(3000), pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])]
)
def test_it_survives_whatever_comes(inputs: int, certificates: Certificates) -> None:
    async def all_of_it(broker: Running) -> list[int]:
        sizes = []
        for start in range(0, inputs, SWEEP):
            await abuse(broker, range(start, min(start + SWEEP, inputs)))
            await still_works(broker)
            if sys.platform == "linux":
                sizes.append(resident(broker))
        return sizes

    flags = ("--msg-timeout=1s", "--statsd-address=127.0.0.1:9", "--statsd-interval=1s", *certificates.server_flags)
    with running(*flags) as broker:
        sizes = asyncio.run(all_of_it(broker))
        assert broker.process.poll() is None
        settled = sizes[: max(1, len(sizes) // 10)]
        assert not sizes or max(sizes) - max(settled) < GROWTH, sizes
        assert broker.stop() == 0
        wrong = [line for line in broker.log if "Traceback" in line or "internal error" in line]
        assert not wrong, wrong[:5]
        # It was not refused at the door: most that can be wrong was found to be wrong.
        codes = {found[0] for line in broker.log if (found := re.search(r"E_[A-Z_]+", line))}
        assert {"E_BAD_BODY", "E_BAD_CHANNEL", "E_BAD_MESSAGE", "E_BAD_PROTOCOL", "E_BAD_TOPIC", "E_INVALID"} <= codes


def test_the_inputs_are_many_and_the_same_every_time() -> None:
    some = [make(SEED, number) for number in range(500)]
    assert some == [make(SEED, number) for number in range(500)]
    assert len({json.dumps([one.to, [step.hex() for step in one.steps]]) for one in some}) > 480
    assert {one.to for one in some} == {"tcp", "http"}
    assert 0 < sum(one.live for one in some) < 250
