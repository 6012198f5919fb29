"""snappy and deflate: the same bytes come out; not granted is a refusal."""

from __future__ import annotations

import random

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.proxy import Proxy
from harness.shell import Shell

ANY = random.Random(3)
BODIES = [b"x", b"\0" * 1_000_000, ANY.randbytes(1_000_000), *(b"%d" % number * 50 for number in range(3000))]
FRAMED = b"".join([len(body).to_bytes(4, "big") + body for body in BODIES])


@pytest.mark.parametrize("words", [["--snappy"], ["--deflate"], ["--deflate", "--deflate-level", "1"]])
def test_there_and_back(shell: Shell, broker: Broker, topic: str, words: list[str]) -> None:
    sent = shell.run("q-pipe", topic, "-f", "length32", *words, *broker.flags, input=FRAMED)
    assert sent.status == 0, sent.err
    read = shell.run("q-tail", f"{topic}/me", "-n", str(len(BODIES)), "-f", "length32", *words, *broker.flags)
    assert (read.status, read.err) == (0, "")
    if broker.kind == "q-broker":
        assert read.out == FRAMED
    else:
        assert len(read.out) == len(FRAMED)
        assert sorted(read.out) == sorted(FRAMED)
    assert broker.depth(topic, "me").held == 0


@pytest.mark.parametrize("word", ["--snappy", "--deflate"])
def test_it_saves_bytes(shell: Shell, broker: Broker, topic: str, word: str, make_proxy: object) -> None:
    assert callable(make_proxy)
    proxy: Proxy = make_proxy(broker)
    assert shell.run("q-pipe", topic, word, *proxy.flags, input=b"x" * 500_000).status == 0
    assert len(proxy.said) < 50_000
    assert broker.bodies(topic) == [b"x" * 500_000]


@pytest.mark.parametrize("what", ["snappy", "deflate"])
def test_not_granted_is_a_refusal(
    shell: Shell, make_broker: MakeBroker, broker_kind: str, topic: str, what: str
) -> None:
    broker = make_broker(f"--no-{what}" if broker_kind == "q-broker" else f"--{what}=false")
    done = shell.run("q-pipe", topic, f"--{what}", *broker.flags, input=b"a\n")
    assert done.status == 3
    assert f"the broker does not offer {what}, which was asked for" in done.err
    assert broker.topic(topic) is None


def test_both_at_once_cannot_be(shell: Shell) -> None:
    for program in ("q-pipe", "q-tail"):
        done = shell.run(program, "topic", "--snappy", "--deflate", input=b"")
        assert done.status == 2
        assert "give --snappy or --deflate, not both" in done.err
