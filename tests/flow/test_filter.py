"""The filter pass: which bodies pass, as what, and what becomes of the others; and the sink with a filter before it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from random import Random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtools.errors import EvaluationError, MessageRefused, PartialFailure, QtoolsError, SinkClosed, SinkError
from qtools.expressions.expression import compile_expression, truthy
from qtools.flow.filter import Filter, FilteredSink, OnError
from qtools.flow.json_values import encode, encode_all, parse, parse_exactly, parser_for
from qtools.flow.loop import Flow
from qtools.message import Batch, Message, Messages
from tests.flow.memory import Calls, Feed, Ledger, numbers
from tests.formats.test_envelope import Place


def rules(where: str | None = None, select: str | None = None, on_error: OnError = "fail") -> Filter:
    return Filter(
        None if where is None else compile_expression(where),
        None if select is None else compile_expression(select),
        on_error,
    )


BODIES = [b'{"n": 1}', b'{"n": 2}', b"no", b'{"n": "x"}', b'{"n":  3}', b"[]"]


@pytest.mark.parametrize(
    ("on_error", "places", "bodies", "failed"),
    [
        ("fail", [1], [b'{"n": 2}'], [2]),
        ("skip", [1, 4], [b'{"n": 2}', b'{"n":  3}'], [2, 3, 5]),
        ("pass", [1, 2, 3, 4, 5], [b'{"n": 2}', b"no", b'{"n": "x"}', b'{"n":  3}', b"[]"], [2, 3, 5]),
    ],
)
def test_where_lets_bodies_pass_as_they_are(
    on_error: OnError, places: list[int], bodies: list[bytes], failed: list[int]
) -> None:
    found = rules(".n - 1 > 0", on_error=on_error).run(batch(BODIES))
    assert (found[0], found[1], list(found[2])) == (places, bodies, failed)


def test_what_is_said_of_those_without_an_answer() -> None:
    _, _, failed = rules(".n - 1 > 0", "{n: (.n - 2)}", "skip").run(
        batch([*BODIES[2:4], b'{"n": null}', b'{"n": 3}', b""])
    )
    assert [str(failed[place]) for place in failed] == [
        "it is not JSON (invalid literal, expected 'null': line 1 column 1 (char 0))",
        '--where failed: string ("x") and number (1) cannot be subtracted',
        "--where failed: null (null) and number (1) cannot be subtracted",
        "it is not JSON (the body is empty)",
    ]
    _, _, failed = rules(None, ".n.m").run(batch([b'{"n": 1}']))
    assert str(failed[0]) == '--select has no result: Cannot index number with string ("m")'


def test_select_makes_compact_json_and_nothing_passes_nothing() -> None:
    places, bodies, failed = rules(None, "select(.n > 1) | {n, twice: (.n * 2)}").run(
        batch([b'{"n": 1}', b'{"n": 2}', b'{ "n": 3.5 }'])
    )
    assert (places, bodies, failed) == ([1, 2], [b'{"n":2,"twice":4}', b'{"n":3.5,"twice":7}'], {})
    # Text is JSON too, with its quotes: what comes out of --select can always be read as JSON.
    assert rules(None, ".n").run(batch([b'{"n": "a"}', b'{"n": null}']))[1] == [b'"a"', b"null"]


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 2**64, 2**64 + 1, -(2**63) - 1, 10**30 + 1, -(10**300) - 1])
def test_no_digit_is_lost(number: int) -> None:
    body = b'{"n": %d}' % number
    assert rules(f".n == {number}" if number > 0 else f".n == -{-number}").run(batch([body]))[0] == [0]
    assert rules(f".n == {abs(number) + 1}").run(batch([body]))[0] == []
    assert rules(None, ".n").run(batch([body]))[1] == [b"%d" % number]
    assert rules(None, "{n: [.n]}").run(batch([body]))[1] == [b'{"n":[%d]}' % number]
    assert rules(None, ".n | tostring").run(batch([body]))[1] == [b'"%d"' % number]


@given(
    st.lists(st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("0123456789.e-"), max_size=8)
)
def test_numbers_are_read_as_pythons_json_reads_them(values: list[Any]) -> None:
    body = json.dumps(values).encode()
    assert parser_for([b"{}", body])(body) == json.loads(body)
    assert parse_exactly(body) == json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"nope", b"\xff", b'"\\ud800"', b"NaN", b"Infinity", b"1 2", b"{'a': 1}",
        b"\xef\xbb\xbf", b'{"a": \xef\xbb\xbf1}',
        b"[" * 5000, b"[" * 5000 + b"1" * 30, b"NaN, " + b"1" * 30, "[1]".encode("utf-16"), b"1e400", b"1" * 5000,
    ],
)  # fmt: skip
def test_what_is_no_json_says_so(body: bytes) -> None:
    for read in (parse, parse_exactly, parser_for([body])):
        with pytest.raises(EvaluationError, match=r"^it is not JSON \("):
            read(body)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(anything, max_size=5))
def test_what_is_encoded_can_be_read_back(values: list[Any]) -> None:
    assert [json.loads(encode(value)) for value in values] == values
    together = encode_all(values)
    assert together is None or [json.loads(body) for body in together] == values


def test_encode_is_compact() -> None:
    assert encode_all([]) == []
    assert encode_all([{"a": [1, "é\n"]}, 1.5, None]) == ['{"a":[1,"é\\n"]}'.encode(), b"1.5", b"null"]
    assert encode_all([{"a": 2**64}, "x"]) is None
    assert encode({"a": 2**64}) == b'{"a":18446744073709551616}'


def test_a_result_that_is_many_times_its_message_has_no_answer() -> None:
    select = "[., .] | " * 9 + "."
    assert compile_expression(select).is_modest is False
    assert compile_expression("{id: .messageId, amount, a: [.b, .c]}").is_modest is True
    places, _, failed = rules(None, select, "skip").run(batch([b'"%s"' % (b"x" * 100_000), b'"x"']))
    assert places == [1]
    assert str(failed[0]) == "--select has no result: the text made of a value is too long"


@pytest.mark.parametrize("depth", [200, 500, 1000])
def test_a_result_that_is_nested_deeply_is_written_or_has_no_answer(depth: int) -> None:
    deep = b"[" * depth + b"]" * depth
    places, bodies, failed = rules(None, "[.]", "skip").run(batch([b"1", deep, b"2"]))
    assert (places, bodies) in (([0, 2], [b"[1]", b"[2]"]), ([0, 1, 2], [b"[1]", b"[%s]" % deep, b"[2]"]))
    assert list(failed) == ([1] if len(places) == 2 else [])


def test_json_that_is_nested_deeply_is_read_or_has_no_answer() -> None:
    deep = b"[" * 1000 + b"1" * 30 + b"]" * 1000
    places, _, failed = rules("true", None, "skip").run(batch([deep, b"1"]))
    assert sorted([*places, *failed]) == [0, 1]
    assert places[-1] == 1


# ── the sink ──


class Sink:
    """Takes batches, until told to raise."""

    def __init__(self, *errors: QtoolsError | None) -> None:
        self.batches: list[Batch] = []
        self.closed = False
        self._errors = list(errors)

    async def write(self, batch: Batch) -> None:
        self.batches.append(batch)
        if self._errors and (error := self._errors.pop(0)) is not None:
            raise error

    async def close(self) -> None:
        self.closed = True

    @property
    def bodies(self) -> list[bytes]:
        return [body for batch in self.batches for body in batch.bodies]


def batch(bodies: Sequence[bytes]) -> Batch:
    messages = [Message(nth, 1, b"%016d" % nth, body) for nth, body in enumerate(bodies)]
    return Batch.of(Place("events", "here"), Messages.of(messages))


def filtered(sink: Sink, how: Filter) -> tuple[FilteredSink, list[str]]:
    warned: list[str] = []
    return FilteredSink(sink, how, name=lambda batch, place: f"message {place}", warn=warned.append), warned


def counts(sink: FilteredSink) -> tuple[int, int, int, int]:
    return sink.passed, sink.filtered, sink.left_out, sink.let_through


def numbered(*values: int | None) -> list[bytes]:
    return [b"no" if value is None else b'{"n":%d}' % value for value in values]


async def test_what_passes_is_written_with_its_ids_and_stamps() -> None:
    sink = Sink()
    under, warned = filtered(sink, rules(".n > 1", "{m: .n}"))
    await under.write(batch(numbered(1, 2, 0, 3)))
    (written,) = sink.batches
    assert [(message.id[-1:], message.timestamp, message.body) for message in written.messages] == [
        (b"1", 1, b'{"m":2}'),
        (b"3", 3, b'{"m":3}'),
    ]
    assert [origin.topic for origin, _, _ in written.parts] == ["events"]
    assert (counts(under), under.passed_bytes, warned) == ((2, 2, 0, 0), 14, [])
    await under.write(batch(numbered(0, 1)))
    assert len(sink.batches) == 1  # nothing passed: nothing is written
    assert counts(under) == (2, 4, 0, 0)
    await under.close()
    assert sink.closed


async def test_the_first_without_an_answer_is_the_end_and_all_before_it_is_written() -> None:
    sink = Sink()
    under, warned = filtered(sink, rules(".n > 1"))
    with pytest.raises(SinkError) as caught:
        await under.write(batch(numbered(2, 0, 3, None, 4)))
    assert caught.value.taken == 3
    assert str(caught.value).startswith("message 3: it is not JSON (")
    assert "--on-error skip" in str(caught.value)
    assert sink.bodies == numbered(2, 3)
    assert (counts(under), warned) == ((2, 1, 0, 0), [])


async def test_those_without_an_answer_are_left_out_and_named_or_let_through() -> None:
    sink = Sink()
    under, warned = filtered(sink, rules(".n > 1", None, "skip"))
    await under.write(batch(numbered(2, None, 0, None)))
    assert sink.bodies == numbered(2)
    assert [line.partition(":")[0] for line in warned] == ["message 1", "message 3"]
    assert counts(under) == (1, 1, 2, 0)
    sink = Sink()
    under, warned = filtered(sink, rules(".n > 1", "{m: .n}", "pass"))
    await under.write(batch(numbered(2, None, 0, None)))
    assert sink.bodies == [b'{"m":2}', b"no", b"no"]
    assert (counts(under), warned) == ((3, 1, 0, 2), [])


@pytest.mark.parametrize(("taken", "upto", "seen"), [(0, 0, (0, 0, 0)), (1, 2, (1, 1, 0)), (2, 5, (2, 2, 1))])
async def test_a_sink_that_closes_says_how_far_in_places_of_the_whole_batch(
    taken: int, upto: int, seen: tuple[int, int, int]
) -> None:
    under, warned = filtered(Sink(SinkClosed("enough", taken)), rules(".n > 1", None, "skip"))
    with pytest.raises(SinkClosed) as caught:
        await under.write(batch(numbered(0, 2, None, 1, 3, None, 4)))
    assert caught.value.taken == upto
    assert counts(under)[:3] == seen
    assert len(warned) == seen[2]  # what comes again is not named now


async def test_what_the_sink_refuses_is_named_by_its_place_in_the_whole_batch() -> None:
    why = MessageRefused("too big")
    under, _ = filtered(Sink(PartialFailure({1: why})), rules(".n > 1", None, "skip"))
    with pytest.raises(PartialFailure) as caught:
        await under.write(batch(numbered(0, 2, 0, 3, 4, None)))
    assert caught.value.failed == {3: why}
    assert counts(under) == (2, 2, 1, 0)


async def test_behind_the_end_nothing_counts_as_written_even_when_the_sink_refuses_some() -> None:
    why = MessageRefused("too big")
    under, _ = filtered(Sink(PartialFailure({0: why})), rules(".n > 1"))
    with pytest.raises(PartialFailure) as caught:
        await under.write(batch(numbered(2, 3, None, 4, 0)))
    assert list(caught.value.failed) == [0, 2, 3, 4]
    assert caught.value.failed[0] is why
    assert str(caught.value.failed[2]).startswith("message 2: it is not JSON")
    assert counts(under) == (1, 0, 0, 0)


async def test_an_error_of_the_whole_batch_goes_through() -> None:
    under, _ = filtered(Sink(MessageRefused("no")), rules(".n > 1"))
    with pytest.raises(MessageRefused):
        await under.write(batch(numbered(2)))
    assert counts(under) == (0, 0, 0, 0)


def parsed(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        raise EvaluationError("") from None


@settings(deadline=None)
@given(
    st.lists(st.none() | st.integers(0, 5), max_size=30),
    st.sampled_from([".n > 2", ".n % 2 == 0", "true", "false", ".n.x", "select(.n == 1)", ".n / (.n - 3)"]),
    st.sampled_from([None, "{m: .n}", "select(.n != 4) | .n", ".n.x", "10 / .n"]),
    st.sampled_from(["skip", "pass"]),
)
async def test_it_does_what_a_plain_loop_does(
    values: list[int | None], where: str, select: str | None, on_error: OnError
) -> None:
    sink = Sink()
    under, _ = filtered(sink, rules(where, select, on_error))
    await under.write(batch(numbered(*values)))
    expected: list[bytes] = []
    for body in numbered(*values):
        try:
            test = compile_expression(where)
            value = parsed(body) if test.reads_body else None
            if not truthy(test(value)):
                continue
            if select is not None and not test.reads_body:
                value = parsed(body)
            made = body if select is None else compile_expression(select)(value)
        except EvaluationError:
            if on_error == "pass":
                expected.append(body)
            continue
        if select is None:
            expected.append(body)
        elif not isinstance(made, type(compile_expression("empty")(None))):
            expected.append(orjson.dumps(made))
    assert sink.bodies == expected
    assert under.passed + under.filtered + under.left_out == len(values)


# ── in the loop ──

# What a message is: passes, does not match, is no JSON.
BODY = {"pass": b'{"n":5}', "drop": b'{"n":0}', "broken": b"no"}


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["pass", "pass", "drop", "broken"]), min_size=1, max_size=6), max_size=6),
    st.sampled_from(["fail", "skip", "pass"]),
    st.lists(st.sampled_from(["ok", "ok", "some", "closed"]), max_size=6),
    st.integers(1, 3),
    st.integers(0),
)
async def test_whatever_happens_nothing_is_finished_that_was_neither_written_nor_left_out(
    batches: list[list[str]], on_error: OnError, ends: list[str], window: int, seed: int
) -> None:
    ledger, random = Ledger(), Random(seed)  # not hypothesis's own: it may end the example within a task
    kinds = [kind for batch in batches for kind in batch]
    written: set[int] = set()
    refused: set[int] = set()

    async def write(batch: Batch) -> None:
        end, known = ends.pop(0) if ends else "ok", numbers(batch)
        await asyncio.sleep(0)
        taken = random.randrange(len(known) + 1)
        if end == "closed":
            written.update(known[:taken])
            raise SinkClosed("enough", taken)
        if end == "some":
            failed = random.sample(range(len(known)), random.randrange(1, len(known) + 1))
            refused.update(known[place] for place in failed)
            written.update(number for number in known if number not in refused)
            raise PartialFailure({place: MessageRefused("too big") for place in sorted(failed)})
        written.update(known)

    def settle(batch: Batch, why: dict[int, QtoolsError]) -> bool:
        for error in why.values():
            if not isinstance(error, MessageRefused):
                raise error
        return True

    feed, first = Feed(), 0
    for batch in batches:
        made = [Message(1, 1, b"%016d" % (first + nth), BODY[kind]) for nth, kind in enumerate(batch)]
        feed.put(Batch.of(ledger, Messages.of(made)))
        first += len(batch)
    feed.put(None)
    sink, _ = filtered(Calls(write), rules(".n > 1", "{m: .n}", on_error))
    flow = Flow(feed, sink, window=window, on_refused=settle)
    error: SinkError | None = None
    try:
        await flow.run()
    except SinkError as caught:
        error = caught
    assert error is None or (on_error == "fail" and "it is not JSON" in str(error))
    totals = flow.totals
    assert totals.read == totals.finished + totals.refused + totals.requeued == len(ledger.told)
    assert len(set(ledger.finished)) + len(set(ledger.requeued)) == len(ledger.told)
    left_out = {"drop"} | ({"broken"} if on_error == "skip" else set())
    for number in ledger.finished:
        assert number in written or number in refused or kinds[number] in left_out
    if error is None and not totals.closed:
        assert sorted(ledger.finished) == list(range(len(kinds)))
