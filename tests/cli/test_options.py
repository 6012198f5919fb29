"""The flags that commands share: what they become, and which of them do not go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from harness.certificates import Certificates

from qtools.cli import options as shared
from qtools.cli.broker import engine_of
from qtools.engines.nsq.address import Address, Brokers
from qtools.engines.nsq.engine import NsqEngine
from qtools.engines.nsq.settings import Settings
from qtools.errors import StartError, UsageError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QTOOLS_BROKER", "QTOOLS_NSQD", "QTOOLS_LOOKUPD", "QTOOLS_AUTH_SECRET"):
        monkeypatch.delenv(name, raising=False)


def parse(*arguments: str) -> dict[str, Any]:
    """What click makes of them, for a command that has every shared flag."""
    found: dict[str, Any] = {}

    @click.command()
    @shared.broker_options
    @shared.connection_options
    @shared.consumer_options
    @shared.logging_options
    @shared.filter_options("skip")
    @shared.null_option
    @click.option("--delimiter")
    def command(**given: Any) -> None:
        found.update(given)

    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return found


def nsq_engine(given: dict[str, Any]) -> NsqEngine:
    engine = engine_of("q-test", given)
    assert isinstance(engine, NsqEngine)
    return engine


def settings(*arguments: str) -> Settings:
    return nsq_engine(parse(*arguments)).settings


def brokers(*arguments: str) -> Brokers:
    return nsq_engine(parse(*arguments)).brokers


def test_what_is_taken_out_of_the_flags_is_gone_and_the_rest_is_left() -> None:
    given = parse("--nsqd", "a:1", "--max-in-flight", "7")
    brokers = nsq_engine(given).brokers
    shared.set_up_logging("q-test", given)
    given["delimiter"] = None
    shared.delimiter_of(given)
    shared.filter_of(given, "skip")
    assert brokers.nsqd == (Address("a", 1, http="http://a:2"),)
    assert given == {"max_in_flight": 7, "since": None}


def test_the_names_of_nsq_are_understood() -> None:
    made = brokers(
        "--nsqd-tcp-address", "a:4150", "--nsqd-tcp-address", "b:4150",
        "--nsqd-http-address", "a:80", "--nsqd-http-address", "b:80",
    )  # fmt: skip
    assert [address.http for address in made.nsqd] == ["http://a:80", "http://b:80"]
    assert brokers("--lookupd-http-address", "a").lookupd == ("http://a:4161",)


def test_settings_are_what_the_flags_say() -> None:
    made = settings("--msg-timeout", "90s", "--deflate", "--deflate-level", "9", "--client-id", "me")
    assert (made.program, made.msg_timeout, made.deflate, made.deflate_level) == ("q-test", 90_000, True, 9)
    assert made.identify_request().client_id == "me"
    assert settings().msg_timeout == 0


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--snappy", "--deflate"], "give --snappy or --deflate, not both"),
        (["--tls-ca", "x"], "need --tls"),
        (["--tls-cert", "x"], "need --tls"),
        (["--tls-insecure-skip-verify"], "need --tls"),
        (["--tls", "--tls-key", "x"], "--tls-key needs --tls-cert"),
        (["--tls-ca", "x", "--lookupd", "http://a"], "need --tls, or an https:// address"),
    ],
)
def test_flags_that_do_not_go_together_are_a_usage_error(arguments: list[str], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        settings(*arguments)


def test_an_https_address_is_reason_enough_for_a_ca_file(certificates: Certificates) -> None:
    for flags in (["--lookupd", "https://a"], ["--nsqd", "a", "--nsqd-http-address", "https://a"]):
        made = settings("--tls-ca", str(certificates.ca), *flags)
        assert made.tls_context() is None
        assert made.http_tls_context() is not None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--max-in-flight", "0"], ["--max-in-flight", "x"], ["--msg-timeout", "999ms"], ["--msg-timeout", "16m"],
        ["--deflate-level", "0"], ["--deflate-level", "10"], ["--log-format", "xml"], ["--unknown"],
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(*arguments)


def test_both_kinds_of_address_are_a_usage_error() -> None:
    with pytest.raises(UsageError, match="not both"):
        brokers("--nsqd", "a", "--lookupd", "b")


def test_a_file_that_cannot_be_used_is_told_before_anything_is_sent(tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    for flag in ("--tls-ca", "--tls-cert"):
        with pytest.raises(StartError, match=rf"cannot use .*{missing}"):
            settings("--tls", flag, missing)
    with pytest.raises(StartError, match=rf"cannot read the secret file {missing}"):
        settings("--auth-secret-file", missing)


def test_the_delimiter_is_a_newline_unless_something_else_is_said() -> None:
    assert shared.delimiter_of({"delimiter": None, "null": False}) == b"\n"
    assert shared.delimiter_of({"delimiter": b"--", "null": False}) == b"--"
    assert shared.delimiter_of({"delimiter": None, "null": True}) == b"\0"
    with pytest.raises(UsageError, match="give --delimiter or -0, not both"):
        shared.delimiter_of({"delimiter": b"--", "null": True})


def test_there_is_no_flag_that_takes_a_secret() -> None:
    """Everybody on the machine can read a command line."""

    @click.command()
    @shared.connection_options
    def command(**given: Any) -> None: ...

    secrets = [param for param in command.params if "secret" in str(param.name)]
    assert [param.opts for param in secrets] == [["--auth-secret-file"]]


# ── the filter ──


def test_without_an_expression_there_is_no_filter() -> None:
    assert shared.filter_of(parse(), "skip") is None
    with pytest.raises(UsageError, match="--on-error goes with --where or --select only"):
        shared.filter_of(parse("--on-error", "skip"), "skip")


def test_expressions_are_compiled_and_the_command_says_what_becomes_of_the_rest() -> None:
    rules = shared.filter_of(parse("--where", ".a", "--select", "{b}"), "skip")
    assert rules is not None
    assert rules.where is not None
    assert rules.select is not None
    assert (rules.where.text, rules.select.text, rules.on_error) == (".a", "{b}", "skip")
    rules = shared.filter_of(parse("--select", "{b}", "--on-error", "pass"), "fail")
    assert rules is not None
    assert (rules.where, rules.on_error) == (None, "pass")


@pytest.mark.parametrize("flag", ["--where", "--select"])
def test_what_does_not_compile_is_said_with_its_flag(flag: str) -> None:
    with pytest.raises(UsageError, match=rf"^{flag}: expression '.a ==', column 6: a value was expected"):
        shared.filter_of(parse(flag, ".a =="), "skip")
