"""A sink with steps before it: what is written, what is counted, and what becomes of messages on which a step fails."""

from __future__ import annotations

import asyncio
import json
from random import Random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtools.errors import EvaluationError, MessageRefused, PartialFailure, QtoolsError, SinkClosed, SinkError
from qtools.expressions.expression import compile_expression, truthy
from qtools.flow.filter import Filter, Rules
from qtools.flow.loop import Flow
from qtools.flow.stepped_sink import SteppedSink
from qtools.flow.steps import OnError, Passed, Steps
from qtools.message import Batch, Message, Messages
from tests.flow.memory import Calls, Feed, Ledger, numbers
from tests.flow.test_filter import batch


def rules(where: str | None = None, select: str | None = None, on_error: OnError = "fail") -> Rules:
    return Rules(
        Filter(
            None if where is None else compile_expression(where),
            None if select is None else compile_expression(select),
        ),
        on_error,
    )


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


def filtered(sink: Sink, how: Steps) -> tuple[SteppedSink, list[str]]:
    warned: list[str] = []
    return SteppedSink(sink, how, name=lambda batch, place: f"message {place}", warn=warned.append), warned


def counts(sink: SteppedSink) -> tuple[int, int, int, int]:
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
    kinds = [kind for group in batches for kind in group]
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
    for group in batches:
        made = [Message(1, 1, b"%016d" % (first + nth), BODY[kind]) for nth, kind in enumerate(group)]
        feed.put(Batch.of(ledger, Messages.of(made)))
        first += len(group)
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


# ── several steps ──


class Drop:
    """A step that drops the messages with the numbers `numbers`, fails on those in `failing`, and adds a suffix to the
    bodies of the others. It notes what becomes of its batches."""

    def __init__(self, numbers: set[int], failing: set[int] = frozenset(), suffix: bytes = b"") -> None:  # type: ignore[assignment]
        self.numbers, self.failing, self.suffix = numbers, failing, suffix
        self.log: list[str] = []

    async def start(self) -> None:
        self.log.append("start")

    async def apply(self, batch: Batch) -> Passed:
        known = [int(bytes(ident)) for ident in batch.ids]
        failed = {
            place: EvaluationError(f"no {number}") for place, number in enumerate(known) if number in self.failing
        }
        places = [place for place, number in enumerate(known) if number not in self.numbers | self.failing]
        passing = batch.pick(places)
        return Passed(passing.with_bodies([body + self.suffix for body in passing.bodies]), places, failed, (self,))

    async def settle(self) -> None:
        self.log.append("settle")

    async def release(self) -> None:
        self.log.append("release")

    async def close(self) -> None:
        self.log.append("close")


async def test_what_a_step_fails_on_goes_past_the_steps_behind_it() -> None:
    first, second = Drop({0}, {1}, b"-a"), Drop({2}, {3}, b"-b")
    sink = Sink()
    under, _ = filtered(sink, Steps((first, second), "pass"))
    await under.write(batch([b"%d" % number for number in range(6)]))
    assert sink.bodies == [b"1", b"3-a", b"4-a-b", b"5-a-b"]
    assert counts(under) == (4, 2, 0, 2)
    assert [message.id[-1:] for message in sink.batches[0].messages] == [b"1", b"3", b"4", b"5"]
    sink = Sink()
    under, warned = filtered(sink, Steps((first, second), "skip"))
    await under.write(batch([b"%d" % number for number in range(6)]))
    assert sink.bodies == [b"4-a-b", b"5-a-b"]
    assert (counts(under), warned) == ((2, 2, 2, 0), ["message 1: no 1: left out", "message 3: no 3: left out"])
    under, _ = filtered(sink, Steps((Drop(set(), {4}, b"-a"), Drop({0}, {2}, b"-b")), "fail"))
    with pytest.raises(SinkError, match="message 2: no 2") as caught:
        await under.write(batch([b"%d" % number for number in range(6)]))
    assert caught.value.taken == 2
    assert sink.batches[-1].bodies == [b"1-a-b"]


@pytest.mark.parametrize(
    ("error", "on_error", "failing", "last"),
    [
        (None, "skip", set(), "settle"),
        (None, "skip", {1}, "settle"),
        (None, "fail", {1}, "release"),  # messages behind the failing one were not written
        (SinkClosed("enough", 1), "skip", set(), "release"),
        (PartialFailure({0: MessageRefused("too big")}), "skip", set(), "release"),
        (MessageRefused("no"), "skip", set(), "release"),
    ],
)
async def test_reservations_are_settled_only_when_all_was_written(
    error: QtoolsError | None, on_error: OnError, failing: set[int], last: str
) -> None:
    step = Drop({0}, failing)
    under, _ = filtered(Sink(error), Steps((step,), on_error))
    try:
        await under.write(batch([b"a", b"b", b"c"]))
    except QtoolsError:
        assert error is not None or last == "release"
    assert step.log == [last]
    await under.write(batch([b"a"]))  # nothing is left to write
    assert step.log == [last, "settle"]


async def test_steps_start_in_their_order_and_close_in_the_other() -> None:
    first, second = Drop(set()), Drop(set())
    second.log = first.log
    steps = Steps((first, second))
    await steps.start()
    await steps.close()
    assert first.log == ["start", "start", "close", "close"]
