"""--output and --fields: what is written for each message."""

from __future__ import annotations

import csv
import io

import pytest

from qtools.attributes import TOMBSTONE, Attributes
from qtools.errors import EvaluationError, UsageError
from qtools.message import Batch
from qtools.tail.columns import columns_format, parse_fields
from qtools.tail.template import parse_template, template_format
from tests.tail.messages import batch_of, record_batch


def lines(template: str, batch: Batch, delimiter: bytes = b"\n") -> tuple[list[bytes], list[str]]:
    failures: list[EvaluationError] = []
    form = template_format(parse_template(template), delimiter, failures.append)
    return form.pieces(batch), [str(each) for each in failures]


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("", b"\n"),
        ("%s", b'{"id":1,"n":"ann"}\n'),
        ("%t|%i|%a|%T|%S", b"orders|0000000000000000|1|1700000000123|18\n"),
        ("[%k|%K|%h|%p|%o]", b"[|-1|||]\n"),
        ("100%%", b"100%\n"),
        (r"\x41\t%t\0", b"A\torders\0\n"),
        ("%{.n} is %{.id}", b"ann is 1\n"),
        ("%{{a: .id}}%{.nothing}%{[.id, null]}", b'{"a":1}[1,null]\n'),
        ('%{"}"}%{$topic}', b"}orders\n"),
        ("%{$attempts}", b"1\n"),
    ],
)
def test_parts(template: str, line: bytes) -> None:
    assert lines(template, batch_of(b'{"id":1,"n":"ann"}')) == ([line], [])


def test_what_an_engine_with_keys_has() -> None:
    attributes = Attributes(
        keys=[b"k1", None], headers=[(("a", b"1"), ("b", None)), ()], timestamps=[5_000_000, 6_999_999],
        partitions=[3, 4], offsets=[10, 11],
    )  # fmt: skip
    batch = record_batch(attributes, b"x", TOMBSTONE)
    assert lines("%k %K [%h] %p %o %T %S", batch)[0] == [b"k1 2 [a=1,b=NULL] 3 10 5 1\n", b" -1 [] 4 11 6 -1\n"]
    assert lines("%{$key}/%{$offset}", batch)[0] == [b"k1/10\n", b"/11\n"]


def test_what_has_no_result_is_empty_and_told() -> None:
    batch = batch_of(b"no JSON", b'{"n":{}}', b'{"n":1}')
    found, failures = lines("<%{.n + 1}>%{$topic}", batch)
    assert found == [b"<>orders\n", b"<>orders\n", b"<2>orders\n"]
    assert len(failures) == 2
    assert failures[0].startswith("it is not JSON")
    assert failures[1].startswith("%{.n + 1} has no result: ")


def test_the_delimiter() -> None:
    assert lines("%s", batch_of(b"a", b"b"), b"")[0] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("template", "part"),
    [
        ("%x", "--output has %x; there are %t %s"),
        ("50%", "--output has %; there are"),
        ("%{.a", "has no closing brace"),
        ("%{.a +}", "expression '.a +'"),
        (r"\q", "unknown escape"),
    ],
)
def test_malformed_templates(template: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_template(template)
    assert part in str(caught.value)


def test_tsv_and_csv() -> None:
    texts = ["plain", "tab\tand\nline\r", 'quote " and, comma', "back\\slash", ""]
    import orjson

    bodies = [orjson.dumps({"id": number, "text": each, "more": [1, None]}) for number, each in enumerate(texts)]
    fields = parse_fields(".id, .text,.more, $topic, .missing, (.id // 0) + 1")
    tsv = b"".join(columns_format(fields, "tsv", pytest.fail).pieces(batch_of(*bodies))).decode()
    unescaped = {"\\t": "\t", "\\n": "\n", "\\r": "\r", "\\\\": "\\"}
    found = []
    for line in tsv.splitlines():
        cells = line.split("\t")
        assert cells[2:5] == ["[1,null]", "orders", ""]
        import re

        found.append(re.sub(r"\\.", lambda each: unescaped[each[0]], cells[1]))
    assert found == texts
    made = b"".join(columns_format(fields, "csv", pytest.fail).pieces(batch_of(*bodies))).decode()
    rows = list(csv.reader(io.StringIO(made, newline="")))
    assert [row[1] for row in rows] == texts
    assert [row[5] for row in rows] == ["1", "2", "3", "4", "5"]


def test_fields_that_fail_are_empty() -> None:
    failures: list[EvaluationError] = []
    form = columns_format(parse_fields(".a + 1, $topic, .b"), "tsv", failures.append)
    assert form.pieces(batch_of(b"{}", b"no", b'{"a":"x","b":2}')) == [
        b"1\torders\t\n",
        b"\torders\t\n",
        b"\torders\t2\n",
    ]
    assert len(failures) == 2


@pytest.mark.parametrize("text", ["", " , ", ".a,", ".a,+", "{a: .b, c"])
def test_malformed_fields(text: str) -> None:
    if text == ".a,":  # as in many languages
        assert len(parse_fields(text)) == 1
        return
    with pytest.raises(UsageError, match="--fields"):
        parse_fields(text)
