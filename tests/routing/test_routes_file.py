"""The routes file: what it may say, and that whatever is wrong is named by file, route and reason."""

from __future__ import annotations

import json

import pytest

from qtools.errors import UsageError
from qtools.routing.routes_file import RoutesFile, parse_routes, template_literals
from tests.routing.batches import batch


def parsed(text: str) -> RoutesFile:
    return parse_routes("r.toml", text.encode())


def refused(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parsed(text)
    told = str(caught.value)
    assert told.startswith("r.toml")
    assert "\n" not in told
    return told


WHOLE = r"""
[[route]]
name = "big purchases"
when = '.type == "purchase" and .amount > 100'
to = "purchases.big"
select = '{id: .messageId, amount}'
sample = 1
last = true

[[route]]
when = '.type'
to = ['events.\(.type)', "all"]

[default]
to = "unrouted"

[[test]]
name = "a big one"
message = '{"type": "purchase", "amount": 150}'
to = ["purchases.big"]

[[test]]
message = '{"type": "look"}'
to = ["all", "events.look"]

[[test]]
message = '{"type": "no topic"}'
error = true

[[test]]
message = '{}'
to = ["unrouted"]
"""


def test_a_whole_file() -> None:
    file = parsed(WHOLE)
    assert [route.name for route in file.routes] == ["big purchases", "route 2"]
    assert file.failures() == []
    routes = file.make()
    assert routes.fixed_topics == ["purchases.big", "all", "unrouted"]
    body = json.dumps({"type": "purchase", "amount": 101, "messageId": 7}).encode()
    assert routes.plan(batch([body])).groups == [("purchases.big", [b'{"id":7,"amount":101}'])]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has no [[route]] and no [default]"),
        ("[[route]\n", "is not TOML: "),
        ("\x00", "is not TOML: "),
        ("[[rout]]\nto = 'a'", "the file: unknown key 'rout': did you mean route?"),
        ("[route]\nto = 'a'", "route is not a list of tables: write [[route]]"),
        ("default = 'a'", "default is not a table: write [default]"),
        ("[[route]]\nname = 'x'", "route 1 ('x'): it has no to"),
        ("[[route]]\nto = 7", "route 1: to is a topic in quotes, or a list of them, not 7"),
        ("[[route]]\nto = []", "route 1: to is a topic in quotes"),
        ("[[route]]\nto = ['a', 1]", "route 1: to is a topic in quotes"),
        ("[[route]]\nto = 'a b'", "route 1: to: topic name 'a b' has ' '"),
        (f"[[route]]\nto = '{'x' * 65}'", "route 1: to: topic name"),
        ("[[route]]\nto = 'a'\n[[route]]\nto = 'b'\nwen = '.x'", "route 2: unknown key 'wen': did you mean when?"),
        ("[[route]]\nto = 'a'\nflavour = 1", "unknown key 'flavour': known are name, when, to, select, sample, last"),
        ("[[route]]\nto = 'a'\nwhen = 1", "route 1: when is an expression in quotes, not 1"),
        ("[[route]]\nto = 'a'\nwhen = '.x = 1'", "route 1: when: expression '.x = 1', column 4: "),
        ("[[route]]\nto = 'a'\nselect = '{'", "route 1: select: expression '{', column "),
        ("[[route]]\nto = 'a'\nsample = 0", "sample is a share above 0 and at most 1, not 0"),
        ("[[route]]\nto = 'a'\nsample = 1.5", "sample is a share"),
        ("[[route]]\nto = 'a'\nsample = true", "sample is a share"),
        ("[[route]]\nto = 'a'\nsample = nan", "sample is a share"),
        ("[[route]]\nto = 'a'\nlast = 'yes'", "last is true or false, not 'yes'"),
        ("[[route]]\nto = 'a'\nname = ''", "name is a text, not ''"),
        ("[[route]]\nto = 'e.\\(.type'", "route 1: to: expression "),
        ("[[route]]\nto = 'my events.\\(.type)'", "route 1: to: topic name 'my events.\\\\(.type)' has ' '"),
        (f"[[route]]\nto = '{'x' * 65}\\(.a)'", "has 65 fixed characters, at most 64 are allowed"),
        ("[default]\nto = 'a'\nwhen = '.x'", "[default]: unknown key 'when'"),
        ("[default]\n", "[default]: it has no to"),
        ("[default]\nto = 'a'\n[[test]]\nto = []", "test 1: it has no message"),
        (
            "[default]\nto = 'a'\n[[test]]\nmessage = 'x'",
            "test 1: give to (a list of topics, [] for nowhere), or error",
        ),
        ("[default]\nto = 'a'\n[[test]]\nmessage = 'x'\nto = ['a']\nerror = true", "test 1: give to"),
        ("[default]\nto = 'a'\n[[test]]\nname = 'n'\nmessage = 'x'\nto = 'a'", "test 1 ('n'): to is a list of topics"),
        ("[default]\nto = 'a'\n[[test]]\nmessage = 'x'\nto = [1]", "test 1: to is a list of topics"),
    ],
)
def test_what_is_wrong_is_named(text: str, told: str) -> None:
    assert told in refused(text)


def test_a_file_that_is_no_text() -> None:
    with pytest.raises(UsageError, match=r"r\.toml is not UTF-8 \(at byte 3\)"):
        parse_routes("r.toml", b"abc\xff")


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ("message = '{\"type\": \"a\"}'\nto = ['b']", "the message should go to b, but went to t.a"),
        ('message = \'{"type": "a"}\'\nto = []', "the message should go nowhere, but went to t.a"),
        ('message = \'{"type": "a"}\'\nerror = true', "the message should fail, but went to t.a"),
        ("message = '{}'\nto = ['t.a']", "the message should go to t.a, but went nowhere"),
        ("message = 'x'\nto = ['t.a']", "the message should go to t.a, but failed: it is not JSON"),
    ],
)
def test_a_test_that_does_not_hold_says_what_happened(test: str, told: str) -> None:
    failures = parsed(f"[[route]]\nwhen = '.type'\nto = 't.\\(.type)'\nsample = 0.001\n[[test]]\n{test}").failures()
    assert len(failures) == 1
    assert failures[0].startswith(f"r.toml: test 1: {told}")


@pytest.mark.parametrize(
    ("text", "literals"),
    [
        ("a", ["a"]),
        ("a.\\(.b)", ["a.", ""]),
        ("\\(.a).x.\\(.b)", ["", ".x.", ""]),
        ("a.\\((.b | tostring)).c", ["a.", ".c"]),
        ('a.\\(.["x)y"]).c', ["a.", ".c"]),
        ('a.\\("\\(.b)(").c', ["a.", ".c"]),
        ('a.\\("\\"(").c', ["a.", ".c"]),
    ],
)
def test_what_of_a_template_is_fixed(text: str, literals: list[str]) -> None:
    assert template_literals(text) == literals


VARIABLE = """
[[route]]
when = '$headers.type == "order" and $partition == 3'
to = 'orders.\\($key)'
[default]
to = "others"
[[test]]
message = "not JSON"
key = "user-1"
headers = {type = "order"}
partition = 3
to = ["orders.user-1"]
[[test]]
message = "not JSON"
to = ["others"]
"""


def test_a_test_gives_the_variables_of_its_message() -> None:
    assert parsed(VARIABLE).failures() == []
    (failure,) = parsed(VARIABLE.replace("partition = 3", "partition = 4")).failures()
    assert failure == "r.toml: test 1: the message should go to orders.user-1, but went to others"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("key = 1", "test 1: key is a text, not 1"),
        ("offset = true", "test 1: offset is an integer, not True"),
        ("timestamp = '1'", "test 1: timestamp is an integer, not '1'"),
        ("headers = 'a'", "test 1: headers is a table, as in {name = \"value\"}, not 'a'"),
        ("headers = {a = 1}", "test 1: header a is a text, not 1"),
        ("keys = 'a'", "test 1: unknown key 'keys': did you mean key?"),
    ],
)
def test_a_variable_of_a_test_that_is_no_value_of_it(line: str, told: str) -> None:
    assert told in refused(f"[default]\nto = 'a'\n[[test]]\nmessage = '1'\nto = ['a']\n{line}")


def test_the_longest_topic_is_that_of_the_engine() -> None:
    text = f"[[route]]\nto = '{'x' * 65}'\n[[route]]\nto = '{'y' * 65}\\(.a)'".encode()
    routes = parse_routes("r.toml", text, 70).make()
    plan = routes.plan(batch([b'{"a":"12345"}', b'{"a":"123456"}']))
    assert [topic for topic, _ in plan.groups] == ["x" * 65, "y" * 65 + "12345"]
    assert "has 71 characters, at most 70 are allowed" in str(plan.failed[1])
