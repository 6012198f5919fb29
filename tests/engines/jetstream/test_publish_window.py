"""The window of publishes without an answer: what is sent, answered, given back, and sent again."""

from __future__ import annotations

import random

from qtools.engines.jetstream.publish.publish_window import PIECE, WINDOW_BYTES, WINDOW_COUNT, PublishRun, PublishWindow


def run_of(count: int, size: int = 1, answered: list[int] | None = None) -> PublishRun:
    sink: list[int] = answered if answered is not None else []
    return PublishRun(b"t", [b"x" * size] * count, None, range(count), sink.append)


def taken_from(window: PublishWindow) -> list[int]:
    """The numbers of all messages that may be sent now."""
    numbers: list[int] = []
    while (taken := window.take()) is not None:
        run, start, stop = taken
        assert stop - start <= PIECE
        numbers += [run.number + place for place in range(start, stop) if not run.answered[place]]
    return numbers


def test_no_more_than_a_window_is_sent() -> None:
    window = PublishWindow()
    window.add(run_of(3 * WINDOW_COUNT))
    first = taken_from(window)
    assert first == list(range(1, WINDOW_COUNT + 1))
    assert window.unanswered == WINDOW_COUNT
    window.confirm(first[:100])
    assert taken_from(window) == list(range(WINDOW_COUNT + 1, WINDOW_COUNT + 101))


def test_large_messages_fill_the_window_by_their_bytes() -> None:
    window = PublishWindow()
    window.add(run_of(100, size=1_000_000))
    sent = taken_from(window)
    assert len(sent) * 1_000_000 < WINDOW_BYTES * 1.5
    window.confirm(sent)
    assert window.unanswered_bytes == 0


def test_answers_in_any_order_are_counted_once() -> None:
    window = PublishWindow()
    counts: list[list[int]] = [[], [], []]
    for answered in counts:
        window.add(run_of(500, answered=answered))
    numbers = taken_from(window)
    assert len(numbers) == 1500
    draw = random.Random(7)
    draw.shuffle(numbers)
    while numbers:
        some = [numbers.pop() for _ in range(min(len(numbers), draw.randrange(1, 40)))]
        window.confirm(some)
        window.confirm(some)  # a second answer changes nothing
        window.confirm([10_000])
    assert [sum(answered) for answered in counts] == [500, 500, 500]
    assert (window.unanswered, window.unanswered_bytes) == (0, 0)
    assert window.take() is None


def test_answers_over_the_ends_of_runs() -> None:
    window = PublishWindow()
    counts: list[list[int]] = [[], [], []]
    for answered in counts:
        window.add(run_of(10, answered=answered))
    taken_from(window)
    window.confirm(list(range(5, 27)))
    assert [sum(answered) for answered in counts] == [6, 10, 6]
    assert window.unanswered == 8


def test_a_lost_connection_sends_again_what_was_not_answered() -> None:
    window = PublishWindow()
    window.add(run_of(1000))
    window.add(run_of(10))
    taken_from(window)
    window.confirm([*range(1, 400), 500])
    assert window.lose_connection() == 1010 - 400
    assert taken_from(window) == [*range(400, 500), *range(501, 1011)]
    window.confirm([400])  # an answer to the first attempt counts
    assert window.unanswered == 609


def test_what_was_given_up_is_not_sent_again() -> None:
    window = PublishWindow()
    run, other = run_of(10), run_of(5)
    window.add(run)
    window.add(other)
    taken_from(window)
    run.is_given_up = True
    window.lose_connection()
    assert taken_from(window) == list(range(11, 16))


def test_a_message_that_is_refused_for_now() -> None:
    window = PublishWindow()
    run = run_of(3)
    window.add(run)
    taken_from(window)
    assert window.find(2) == (run, 1)
    window.give_back(run, 1)
    assert window.unanswered == 2
    assert window.resend(run, 1)
    window.confirm([1, 2, 3])
    assert not window.resend(run, 1)
    assert window.find(2) is None
