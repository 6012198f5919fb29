"""TLS: verified unless told otherwise, and never silently left out."""

from __future__ import annotations

import pytest
from conftest import MakeBroker
from harness.brokers import Q_BROKER, Broker
from harness.certificates import Certificates
from harness.shell import Done, Shell

pytestmark = pytest.mark.forks


@pytest.fixture
def secured(make_broker: MakeBroker, certificates: Certificates) -> Broker:
    return make_broker(*certificates.server_flags, "--tls-required=tcp-https")


def failed(done: Done, status: int = 3) -> str:
    assert done.status == status, done.err
    assert len(done.err_lines) == 1, done.err
    return done.err


@pytest.mark.parametrize("extra", [[], ["--snappy"], ["--deflate"]])
def test_there_and_back(
    shell: Shell, secured: Broker, certificates: Certificates, topic: str, extra: list[str]
) -> None:
    lines = [b"%05d" % number + b"x" * 200 for number in range(5000)]
    words = ["--tls", "--tls-ca", str(certificates.ca), *extra, *secured.flags]
    sent = shell.run("q-pipe", topic, *words, input=b"\n".join(lines))
    assert sent.status == 0, sent.err
    read = shell.run("q-tail", f"{topic}/me", "-n", "5000", *words)
    assert (read.status, read.err) == (0, "")
    assert sorted(read.lines) == lines
    assert secured.depth(topic, "me").held == 0


def test_what_only_https_tells_is_asked_with_the_same_ca(
    shell: Shell, make_broker: MakeBroker, broker_kind: str, certificates: Certificates, topic: str
) -> None:
    retain = ["--retain=1h"] if broker_kind == Q_BROKER else []
    broker = make_broker(*certificates.server_flags, "--tls-required=true", *retain)
    words = ["--tls", "--tls-ca", str(certificates.ca), "--nsqd", broker.address]
    words += ["--nsqd-http-address", f"https://127.0.0.1:{broker.https_port}"]
    assert shell.run("q-pipe", topic, *words, input=b"a\nb\n").status == 0
    refused = shell.run("q-tail", topic, "-n", "1", *words)
    assert (refused.status, "2 messages: a temporary channel would take them all" in refused.err) == (2, True)
    read = shell.run("q-tail", f"{topic}/me", "--until-empty", *words)
    assert (read.status, read.err, read.lines) == (0, "", [b"a", b"b"])
    if broker.kind == Q_BROKER:
        again = shell.run("q-tail", f"{topic}/again", "--since", "1h", "-n", "2", *words)
        assert (again.status, again.err, again.lines) == (0, "", [b"a", b"b"])
        assert shell.run("q-pipe", topic, *words, input=b"c\n").status == 0
        seen = shell.run("q-tail", f"{topic}/me", "--peek", *words)
        assert (seen.status, seen.err, seen.lines) == (0, "", [b"c"])
    kept = shell.run("q-to-file", "--topic-pattern", f"^{topic}$", "--output", "kept", "--until-empty", *words)
    assert (kept.status, kept.err_lines[-1].partition(" in ")[0]) == (0, "q-to-file: archived 0 messages (0 B)"), (
        kept.err
    )


def test_by_host_name(shell: Shell, secured: Broker, certificates: Certificates, topic: str) -> None:
    words = ["--tls", "--tls-ca", str(certificates.ca), "--nsqd", f"localhost:{secured.port}"]
    assert shell.run("q-pipe", topic, *words, input=b"a\n").status == 0


def test_a_ca_that_did_not_sign_it(shell: Shell, secured: Broker, certificates: Certificates, topic: str) -> None:
    words = ["--tls", "--tls-ca", str(certificates.stranger_ca), *secured.flags]
    for command in (["q-pipe", topic], ["q-tail", f"{topic}/me"]):
        told = failed(shell.run(*command, *words, input=b"a\n"))
        assert secured.address in told
        assert "certificate" in told
    told = failed(shell.run("q-pipe", topic, "--tls", *secured.flags, input=b"a\n"))
    assert "certificate" in told
    assert secured.topic(topic) is None


def test_a_certificate_of_another_host(
    shell: Shell, make_broker: MakeBroker, certificates: Certificates, topic: str
) -> None:
    broker = make_broker(f"--tls-cert={certificates.other_cert}", f"--tls-key={certificates.other_key}")
    words = ["--tls", "--tls-ca", str(certificates.ca), *broker.flags]
    told = failed(shell.run("q-pipe", topic, *words, input=b"a\n"))
    assert "127.0.0.1" in told
    assert "certificate" in told
    unverified = shell.run("q-pipe", topic, "--tls", "--tls-insecure-skip-verify", *broker.flags, input=b"a\n")
    assert unverified.status == 0, unverified.err
    assert broker.bodies(topic) == [b"a"]


def test_a_client_certificate_that_is_asked_for(
    shell: Shell, make_broker: MakeBroker, certificates: Certificates, topic: str
) -> None:
    broker = make_broker(
        *certificates.server_flags,
        "--tls-required=tcp-https",
        "--tls-client-auth-policy=require-verify",
        f"--tls-root-ca-file={certificates.ca}",
    )
    words = ["--tls", "--tls-ca", str(certificates.ca), *broker.flags]
    own = ["--tls-cert", str(certificates.client_cert), "--tls-key", str(certificates.client_key)]
    assert shell.run("q-pipe", topic, *words, *own, input=b"a\n").status == 0
    done = shell.run("q-tail", f"{topic}/me", "-n", "1", *words, *own)
    assert (done.status, done.out) == (0, b"a\n")

    told = failed(shell.run("q-pipe", topic, *words, input=b"a\n"))
    assert broker.address in told
    assert "wants a certificate of us: give --tls-cert" in told
    strange = ["--tls-cert", str(certificates.strange_cert), "--tls-key", str(certificates.strange_key)]
    told = failed(shell.run("q-pipe", topic, *words, *strange, input=b"a\n"))
    assert "certificate" in told or "unknown ca" in told.lower()


def test_not_offered_is_a_refusal_and_nothing_goes_in_clear(shell: Shell, broker: Broker, topic: str) -> None:
    for command in (["q-pipe", topic], ["q-tail", f"{topic}/me"]):
        told = failed(shell.run(*command, "--tls", *broker.flags, input=b"a\n"))
        assert "the broker does not offer TLS, which was asked for" in told
    assert broker.topic(topic) is None


def test_required_and_not_asked_for(shell: Shell, secured: Broker, topic: str) -> None:
    sent = shell.run("q-pipe", topic, *secured.flags, input=b"a\n")
    assert sent.status == 1
    assert len(sent.err_lines) == 2, sent.err
    assert "TLS required" in sent.err_lines[0]
    assert sent.err_lines[0].endswith(": give --tls")
    assert "confirmed: 0 messages" in sent.err_lines[1]
    told = failed(shell.run("q-tail", f"{topic}/me", *secured.flags))
    assert secured.address in told
    assert told.endswith(": give --tls\n")


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["--tls", "--tls-ca", "missing"], 3, "cannot use the CA file missing: No such file"),
        (["--tls", "--tls-ca", "garbage"], 3, "cannot use the CA file garbage"),
        (["--tls", "--tls-cert", "missing"], 3, "cannot use the client certificate missing"),
        (["--tls", "--tls-cert", "garbage", "--tls-key", "garbage"], 3, "cannot use the client certificate garbage"),
        (["--tls-ca", "garbage"], 2, "need --tls"),
        (["--tls-insecure-skip-verify"], 2, "need --tls"),
        (["--tls", "--tls-key", "garbage"], 2, "--tls-key needs --tls-cert"),
    ],
)
@pytest.mark.parametrize("program", ["q-pipe", "q-tail"])
def test_files_that_cannot_be_used(shell: Shell, program: str, words: list[str], status: int, told: str) -> None:
    (shell.home / "garbage").write_text("garbage\n")
    assert told in failed(shell.run(program, "topic", *words, "--nsqd", "127.0.0.1:1", input=b""), status)
