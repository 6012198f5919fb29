"""Each command finds its broker by --broker, by QTOOLS_BROKER, by a profile, and by the full address of a topic."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from conftest import MakeBroker
from harness.brokers import Broker, Lookupd
from harness.certificates import Certificates
from harness.shell import Done, Shell
from harness.waiting import wait_until

from qtools.engines.url import example_urls

pytestmark = pytest.mark.forks

WAYS = ["flag", "environment", "profile", "profile in the environment", "address"]
NOT_IN_A_TOPIC = [way for way in WAYS if way != "address"]


@dataclass
class Named:
    """How a broker is named: flags, variables, and what stands before a topic."""

    flags: list[str] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    prefix: str = ""


def write_profile(shell: Shell, text: str, mode: int = 0o644) -> Path:
    path = shell.home / ".config" / "qtools" / "config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def named(shell: Shell, way: str, url: str) -> Named:
    """The broker at `url`, named in that way. Each way goes before what QTOOLS_NSQD says, or is refused with it."""
    if way.startswith("profile"):
        write_profile(shell, f'[broker.prod]\nurl = "{url}"\n')
    elsewhere = {"QTOOLS_BROKER": "nsq://127.0.0.1:1"}
    match way:
        case "flag":
            return Named(["--broker", url], elsewhere)
        case "profile":
            return Named(["-b", "prod"], elsewhere)
        case "environment":
            return Named(environ={"QTOOLS_BROKER": url})
        case "profile in the environment":
            return Named(environ={"QTOOLS_BROKER": "prod"})
        case _:
            return Named(environ=elsewhere, prefix=f"{url}/")


def fine(done: Done) -> Done:
    assert done.status == 0, done.err
    return done


@pytest.mark.parametrize("way", WAYS)
def test_q_pipe_and_q_tail(shell: Shell, broker: Broker, topic: str, way: str) -> None:
    it = named(shell, way, f"nsq://{broker.address}")
    fine(shell.run("q-pipe", it.prefix + topic, *it.flags, input=b"a\nb\n", environ=it.environ))
    assert broker.published(topic) == 2
    read = shell.run("q-tail", f"{it.prefix}{topic}/me", "--until-empty", *it.flags, environ=it.environ)
    assert (fine(read).out, read.err) == (b"a\nb\n", "")


@pytest.mark.parametrize("way", WAYS)
def test_q_bridge(shell: Shell, broker: Broker, topic: str, way: str) -> None:
    broker.fill(topic, [b"a"])
    it = named(shell, way, f"nsq://{broker.address}")
    words = [f"{it.prefix}{topic}/router", "--to", f"{topic}.copy", "--until-empty"]
    fine(shell.run("q-bridge", *words, *it.flags, environ=it.environ))
    assert broker.bodies(f"{topic}.copy") == [b"a"]  # where the source is


@pytest.mark.parametrize("way", ["flag", "profile", "address"])
def test_q_bridge_to_another_broker(shell: Shell, make_broker: MakeBroker, topic: str, way: str) -> None:
    here, there = make_broker(), make_broker()
    bodies = [b'{"type": "a"}', b'{"type": "/?b"}']
    here.fill(topic, bodies)
    it = named(shell, way, f"nsq://{there.address}")
    flags = ["--to-broker" if flag in ("--broker", "-b") else flag for flag in it.flags]
    words = [
        "--to",
        it.prefix + r'events.\(if .type == "/?b" then "b" else .type end)',
        "--on-error",
        "fail",
        "--until-empty",
    ]
    fine(shell.run("q-bridge", f"nsq://{here.address}/{topic}/r", *words, *flags, environ=it.environ))
    assert [there.bodies(f"events.{kind}") for kind in ("a", "b")] == [[body] for body in bodies]


def test_q_bridge_does_not_feed_itself_whatever_the_broker_is_called(shell: Shell, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a"])
    words = [f"nsq://{broker.address}/{topic}", "--to", f"nsq://localhost:{broker.port}/{topic}", "--until-empty"]
    done = shell.run("q-bridge", *words)
    assert done.status == 2
    assert f"{topic} is read and written to on the same brokers" in done.err


@pytest.mark.parametrize("way", WAYS)
def test_q_to_file_and_replay(shell: Shell, broker: Broker, topic: str, way: str) -> None:
    broker.fill(topic, [b"a", b"b"])
    it = named(shell, way, f"nsq://{broker.address}")
    words = [f"{it.prefix}{topic}/archive", "-o", "out", "--until-empty"]
    fine(shell.run("q-to-file", *words, *it.flags, environ=it.environ))
    fine(shell.run("q-to-file", "replay", "out", f"{it.prefix}{topic}.again", *it.flags, environ=it.environ))
    assert broker.bodies(f"{topic}.again") == [b"a", b"b"]


@pytest.mark.parametrize("way", NOT_IN_A_TOPIC)
def test_q_pubsub_http(shell: Shell, broker: Broker, topic: str, way: str) -> None:
    it = named(shell, way, f"nsq://{broker.address}")
    gateway = shell.start("q-pubsub-http", "--http-address", "127.0.0.1:0", *it.flags, environ=it.environ)
    found = wait_until(lambda: re.search(r"serving (http://\S+)", gateway.err), what=lambda: gateway.err)
    answer = httpx.post(f"{found[1]}/pub", params={"topic": topic}, content=b"a", trust_env=False)
    assert answer.status_code == 200
    assert broker.bodies(topic) == [b"a"]


def test_several_urls(shell: Shell, make_broker: MakeBroker, topic: str) -> None:
    one, two = make_broker(), make_broker()
    both = [["-b", f"nsq://{one.address}", "-b", f"nsq://{two.address}"], ["-b", f"nsq://{one.address},{two.address}"]]
    for flags in both:
        fine(shell.run("q-pipe", topic, "--replicate", *flags, input=b"a\n"))
    assert [each.bodies(topic) for each in (one, two)] == [[b"a", b"a"]] * 2


def test_a_unix_socket(shell: Shell, topic: str) -> None:
    """That of the private local broker, which is named as `local` too."""
    fine(shell.run("q-pipe", topic, "-b", "local", input=b"a\n", environ={"QTOOLS_BROKER": "nsq://127.0.0.1:1"}))
    socket = str(shell.home / "run" / "qtools" / "broker.sock")
    fine(shell.run("q-pipe", topic, "--broker", f"nsq+unix:{socket}", input=b"b\n"))
    address = "nsq+unix://" + socket.replace("/", "%2F")
    read = shell.run("q-tail", f"{address}/{topic}/me", "-n", "2")
    assert fine(read).out == b"a\nb\n"


def test_an_ephemeral_channel_by_its_address(shell: Shell, broker: Broker, topic: str) -> None:
    for channel in ("one%23ephemeral", "two#ephemeral"):
        words = [f"nsq://{broker.address}/{topic}/{channel}", "-n", "1"]
        tail = shell.start("q-tail", *words)
        broker.wait_clients(topic, channel.replace("%23", "#"))
        broker.fill(topic, [b"a"])
        assert fine(tail.wait()).out == b"a\n"


@pytest.mark.nsqd
def test_lookupd(shell: Shell, make_broker: MakeBroker, make_lookupd: Callable[[], Lookupd], topic: str) -> None:
    lookupd = make_lookupd()
    broker = make_broker(f"--lookupd-tcp-address={lookupd.address}")
    broker.fill(topic, [b"a"])
    wait_until(lambda: lookupd.producers(topic))
    url = f"nsq+lookupd://{lookupd.http}"
    for words in ([f"{url}/{topic}/one"], [f"{topic}/two", "-b", url]):
        broker.create(topic, words[0].rpartition("/")[2])
        broker.fill(topic, [b"b"])
        assert b"b\n" in fine(shell.run("q-tail", *words, "--until-empty")).out


def test_tls_by_url_query_and_profile(
    shell: Shell, make_broker: MakeBroker, certificates: Certificates, topic: str
) -> None:
    broker = make_broker(*certificates.server_flags, "--tls-required=tcp-https")
    url = f"nsqs://{broker.address}"
    (shell.home / ".config" / "qtools").mkdir(parents=True)
    (shell.home / ".config" / "qtools" / "ca.pem").write_bytes(certificates.ca.read_bytes())
    write_profile(shell, f'[broker.prod]\nurl = "nsq://{broker.address}"\ntls = true\ntls_ca = "ca.pem"\n')
    for words in (
        [f"{url}/{topic}?tls_ca={certificates.ca}"],
        [topic, "-b", url, "--tls-ca", str(certificates.ca)],
        [topic, "-b", url, "--engine-option", f"tls-ca={certificates.ca}"],
        [topic, "-b", "prod"],
    ):
        fine(shell.run("q-pipe", *words, input=b"a\n"))
    assert broker.published(topic) == 4
    clear = shell.run("q-pipe", f"nsq://{broker.address}/{topic}", input=b"a\n")
    assert clear.status in (1, 3)
    assert "TLS" in clear.err
    assert broker.published(topic) == 4
    unverified = shell.run("q-pipe", f"{url}/{topic}", input=b"a\n")
    assert (unverified.status, "certificate" in unverified.err) == (3, True)


def test_options_reach_the_broker(shell: Shell, broker: Broker, topic: str) -> None:
    url = f"nsq://{broker.address}?client_id=of-the-query&msg_timeout=7s"
    tail = shell.start("q-tail", f"{topic}/me", "-b", url, "--engine-option", "client-id=of-the-option")
    broker.wait_clients(topic, "me")
    (told,) = [client for each in broker.stats(topic, clients=True) for client in each["channels"][0]["clients"]]
    assert told["client_id"] == "of-the-option"
    tail.reap()


@pytest.mark.parametrize(
    ("program", "flag"),
    [
        ("q-pipe", "--broker"),
        ("q-tail", "-b"),
        ("q-bridge", "--to-broker"),
        ("q-to-file", "-b"),
        ("q-pubsub-http", "-b"),
    ],
)
def test_a_shell_completes_profiles_and_schemes(shell: Shell, program: str, flag: str) -> None:
    def completed(word: str) -> list[bytes]:
        environ = {f"_{program.replace('-', '_').upper()}_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
        done = fine(shell.run(program, environ={**environ, "COMP_WORDS": f"{program} {flag} {word}"}))
        return [line for line in done.lines if line]

    assert completed("ns") == [b"plain,nsq://", b"plain,nsqs://", b"plain,nsq+lookupd://", b"plain,nsqs+lookupd://",
                              b"plain,nsq+unix:/"]  # fmt: skip
    write_profile(shell, '[broker.prod]\nurl = "nsq://h"\n[broker.prep]\n')
    assert completed("pr") == [b"plain,prod", b"plain,prep"]
    write_profile(shell, "wrong")
    assert completed("pr") == []


# ── what is refused ──

COMMANDS = {
    "q-pipe": ["q-pipe", "t"],
    "q-tail": ["q-tail", "t/me"],
    "q-bridge": ["q-bridge", "t", "--to", "u"],
    "q-to-file": ["q-to-file", "t", "-o", "out"],
    "q-to-file replay": ["q-to-file", "replay", "out", "t"],
    "q-pubsub-http": ["q-pubsub-http", "--http-address", "127.0.0.1:0"],
}


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize(
    ("words", "environ", "message"),
    [
        (["-b", "nsq://h", "--nsqd", "h"], {}, "--broker and --nsqd both name the broker: leave out --nsqd"),
        (["-b", "prod"], {}, "--broker: there is no profile 'prod': CONFIG does not exist"),
        ([], {"QTOOLS_BROKER": "h:4150"},
         f"QTOOLS_BROKER: 'h:4150' is neither a URL nor the name of a profile: write {example_urls('h:4150')}"),
        ([], {"QTOOLS_BROKER": "nsq://h", "QTOOLS_NSQD": "h"},
         "QTOOLS_BROKER and QTOOLS_NSQD are both set: unset QTOOLS_NSQD"),
        (["-b", "nsq://h", "--engine-option", "tls"], {}, "--engine-option 'tls' is not KEY=VALUE"),
        (["-b", "nsq://h", "--engine-option", "a=1", "--engine-option", "a=2"], {}, "--engine-option gives 'a' twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(
    shell: Shell, name: str, words: list[str], environ: dict[str, str], message: str
) -> None:
    done = shell.run(*COMMANDS[name], *words, input=b"", environ=environ)
    message = message.replace("CONFIG", f"{shell.home}/.config/qtools/config.toml")
    assert (done.status, done.out, done.err) == (2, b"", f"{name}: {message} (see {name} --help)\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["q-tail", "nsq://a/x", "nsq://b/y"],
         "q-tail reads from one broker: nsq://a/x and nsq://b/y name two; run the command once for each"),
        (["q-tail", "x", "nsq://b/y"],
         "q-tail reads from one broker: x and nsq://b/y differ; write the address to x too, or use --broker"),
        (["q-tail", "nsq://a/x", "-b", "prod"],
         "the topic's address (nsq://a:4150) names the broker, and so does --broker: leave out --broker"),
        (["q-tail", "nsq://a"], "address 'nsq://a:4150' names no topic: write nsq://a:4150/TOPIC"),
        (["q-to-file", "nsq://a/x", "nsq://b/y", "-o", "out"],
         "q-to-file reads from one broker: nsq://a/x and nsq://b/y name two; run the command once for each"),
        (["q-bridge", "nsq://a/x", "nsq://b/y", "--to", "z"],
         "q-bridge reads from one broker: nsq://a/x and nsq://b/y name two; run the command once for each"),
        (["q-bridge", "x", "--to", "nsq://a/y", "--to", "z"],
         "q-bridge sends to one broker: nsq://a/y and z differ; write the address to z too, or use --broker"),
        (["q-bridge", "x", "--to", "nsq://a/y", "--to-nsqd", "b"],
         "the topic's address (nsq://a:4150) names the broker, and so does --to-nsqd: leave out --to-nsqd"),
        (["q-pipe", "nsq://a/x/c"],
         "nsq://a:4150/x/c names a channel, and messages are sent to topics: nsq://a:4150/x"),
        (["q-pipe", "x", "nsq://a/y"], "nsq://a/y stands in the place of a FILE; the topic comes first"),
    ],
)  # fmt: skip
def test_addresses_that_do_not_fit(shell: Shell, words: list[str], message: str) -> None:
    done = shell.run(*words, input=b"")
    assert (done.status, done.err) == (2, f"{words[0]}: {message} (see {words[0]} --help)\n")


def test_a_routes_file_has_topics_only(shell: Shell, broker: Broker, topic: str) -> None:
    (shell.home / "routes.toml").write_text('[default]\nto = "nsq://:s3cret@b/x"\n')
    done = shell.run("q-bridge", topic, "--routes", "routes.toml", *broker.flags)
    assert done.status == 2
    assert "is a URL, and only a name can stand here" in done.err
    assert "s3cret" not in done.err
