"""Which flags do not go together: the rules, and those of each command that has them as data."""

from __future__ import annotations

from typing import Any

import click
import pytest

from qtools.bridge import flags as bridge_flags
from qtools.bridge.command import main as bridge_main
from qtools.cli.flag_rules import Excludes, Needs, check_rules
from qtools.errors import UsageError
from qtools.pipe import command as pipe
from qtools.pubsub_http import flags as gateway_flags
from qtools.pubsub_http.command import main as gateway_main
from qtools.tail import flags as tail_flags
from qtools.tail.command import main as tail_main

RULES = (
    Excludes("quick", ("slow_start", "rate"), "{flag} and {other} contradict"),
    Needs(("rate",), "unit", "{flag} needs --unit"),
)


def given(**values: Any) -> dict[str, Any]:
    return {"quick": False, "slow_start": (), "rate": None, "unit": None, **values}


@pytest.mark.parametrize(
    "values",
    [{}, {"quick": True}, {"slow_start": ("a",)}, {"rate": 1.0, "unit": ""}, {"quick": True, "rate": 0.0}],
)
def test_what_goes_together(values: dict[str, Any]) -> None:
    check_rules(given(**values), RULES)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quick": True, "slow_start": ("a",)}, "--quick and --slow-start contradict"),
        ({"quick": True, "rate": 1.0, "unit": "s"}, "--quick and --rate contradict"),
        ({"rate": 1.0}, "--rate needs --unit"),
        ({"rate": ""}, "--rate needs --unit"),
    ],
)
def test_what_does_not(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_rules(given(**values), RULES)
    assert str(refused.value) == message


COMMANDS = [
    (bridge_main, bridge_flags.RULES, bridge_flags.BridgeFlags),
    (tail_main, tail_flags.RULES, tail_flags.TailFlags),
    (gateway_main, gateway_flags.RULES, gateway_flags.GatewayFlags),
    (pipe.main, (*pipe.RULES, *pipe.FOLLOWING, *pipe.NOT_FOLLOWING), pipe.PipeFlags),
]


@pytest.mark.parametrize(("command", "rules", "flags"), COMMANDS, ids=["q-bridge", "q-tail", "q-pubsub-http", "q-pipe"])
def test_rules_and_types_name_flags_that_the_command_has(
    command: click.Command, rules: tuple[Excludes | Needs, ...], flags: type
) -> None:
    names = {parameter.name for parameter in command.params}
    assert flags.__annotations__.keys() <= names
    for rule in rules:
        assert {rule.flag, *rule.others} <= names if isinstance(rule, Excludes) else {rule.needed, *rule.flags} <= names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["t", "--redrive", "--where", ""], "--redrive puts messages back as they were: --where does not go with it"),
        (["t", "--redrive", "--dry-run"], "--redrive puts messages back as they were: --dry-run does not go with it"),
        (["t", "--to", "a", "--explain", "--rate", "5"], "--explain and --rate do not go together: --explain sends"),
        (["t", "--routes", "f", "--select", ""], "--select goes with --to; in a routes file each route has a select"),
        (["t", "--to", "a", "--dedupe-file", "f"], "--dedupe-file goes with --dedupe"),
    ],
)  # fmt: skip
def test_rules_of_the_bridge(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        bridge_options(arguments)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--https-key", "x"], "--https-key needs --https-cert"),
        (["--max-body-size", "1k"], "--max-body-size is less than --max-msg-size"),
    ],
)
def test_rules_of_the_gateway(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        gateway_flags.options_of(gateway_main.make_context("q-pubsub-http", arguments).params)


@pytest.mark.parametrize("arguments", [["--since", "1h"], ["--until-now"], ["--idle-timeout", "1s"]])
def test_rules_of_the_tail(arguments: list[str]) -> None:
    values = tail_main.make_context("q-tail", ["t/c", "--peek", *arguments]).params
    with pytest.raises(
        UsageError, match=f"--peek reads once, and takes nothing: it cannot be used with {arguments[0]}"
    ):
        tail_flags.options_of(values.pop("sources"), values, show=False)


def pipe_options(arguments: list[str]) -> Any:
    values = pipe.main.make_context("q-pipe", list(arguments)).params
    words, before = values.pop("words"), dict(values)
    options = pipe.options_of(words, values, show=False)
    assert values == before
    return options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--routes", "r", "--select", ".a", "f.log"], "--select goes with a TOPIC; in a routes file"),
        (["t", "f.log", "--checkpoint", "p", "--skip-bytes", "3"], "give --checkpoint or --skip-bytes, not both"),
        (["t", "f.log", "--follow", "--skip-bytes", "3"], "give --follow or --skip-bytes, not both"),
        (["t", "f.log", "--rotated", "g"], "--rotated goes with --checkpoint or --follow"),
        (["t", "f.log", "--on-missing", "skip"], "--on-missing goes with --checkpoint or --follow"),
        (["t", "f.log", "--skip-if-running"], "--skip-if-running goes with --checkpoint or --follow"),
        (["t", "f.log", "--follow", "--skip-if-running"], "--skip-if-running goes with --checkpoint"),
        (["t", "f.log", "--on-error", "skip"], "--on-error goes with --where or --select only"),
        (["t", "a", "b", "--follow", "--rotated", "g"], "with several files each --rotated needs {name}"),
    ],
)
def test_rules_of_the_pipe(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        pipe_options(arguments)
    assert str(refused.value).startswith(message)


def test_what_becomes_of_errors_goes_for_routes_and_the_filter_alike() -> None:
    nsqd = ["a.log", "--follow", "--nsqd", "127.0.0.1:4150"]
    options = pipe_options(["--routes", "r", "--on-error", "skip", *nsqd])
    assert (options.routes, options.on_error, options.rules, options.topic) == ("r", "skip", None, "")
    options = pipe_options(["--routes", "r", "--on-error", "skip", "--where", ".a", *nsqd])
    assert (options.on_error, options.rules.on_error, options.follow) == ("skip", "skip", True)


def bridge_options(arguments: list[str]) -> Any:
    values = bridge_main.make_context("q-bridge", list(arguments)).params
    return bridge_flags.options_of(values.pop("sources"), values, show=False)


def test_the_order_of_flags_means_nothing_and_nothing_is_taken_out() -> None:
    arguments = ["--to", "a", "--count", "3", "--rate", "5", "--until-now", "t/c", "--nsqd", "127.0.0.1:4150"]
    options = bridge_options(arguments)
    assert (options.to, options.count, options.rate, options.ends.until_now) == (("a",), 3, 5.0, True)
    values = bridge_main.make_context("q-bridge", list(arguments)).params
    sources, before = values.pop("sources"), dict(values)
    bridge_flags.options_of(sources, values, show=False)
    assert values == before


@pytest.mark.parametrize(
    ("more", "until_empty", "until_now"),
    [([], True, False), (["--until-now"], False, True), (["--fail-if-paused"], True, False)],
)
def test_a_redrive_ends_by_itself(more: list[str], until_empty: bool, until_now: bool) -> None:
    ends = bridge_options(["t.dead", "--redrive", "--nsqd", "127.0.0.1:4150", *more]).ends
    assert (ends.until_empty, ends.until_now) == (until_empty, until_now)


def test_explain_explains_one_message_unless_a_count_is_given() -> None:
    nsqd = ["--nsqd", "127.0.0.1:4150", "--to", "a"]
    assert bridge_options(["t", "--explain", *nsqd]).count == 1
    assert bridge_options(["t", "--explain", "--count", "5", *nsqd]).count == 5
    assert bridge_options(["t", *nsqd]).count is None
