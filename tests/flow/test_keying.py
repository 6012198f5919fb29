"""Keys and headers that expressions give to messages before they are published."""

from __future__ import annotations

from collections.abc import Sequence

from qtools.attributes import Attributes
from qtools.errors import MessageRefused
from qtools.expressions.expression import NO_VARIABLES, compile_expression
from qtools.flow.contract import GroupAttributes, Refused
from qtools.flow.keying import FixedAttributes, KeyedPublisher, Keying

KEY = compile_expression(".user")


class Recorder:
    """A publisher that writes down what it is given, and refuses the body `bad`."""

    def __init__(self) -> None:
        self.groups: list[tuple[str, list[bytes], Attributes]] = []

    async def publish(
        self, groups: Sequence[tuple[str, Sequence[bytes]]], *, attributes: GroupAttributes | None = None
    ) -> Refused:
        assert attributes is not None
        for (topic, bodies), some in zip(groups, attributes(), strict=True):
            self.groups.append((topic, list(bodies), some))
        return {
            (number, place): MessageRefused("too large")
            for number, (_, bodies) in enumerate(groups)
            for place, body in enumerate(bodies)
            if b"bad" in body
        }

    async def close(self) -> None: ...


async def test_a_key_is_text_json_or_nothing() -> None:
    recorder = Recorder()
    bodies = [b'{"user":"u1"}', b'{"user":7}', b'{"user":{"a":[1]}}', b'{"user":null}', b"{}", '{"user":"ü"}'.encode()]
    assert await KeyedPublisher(recorder, Keying(KEY)).publish([("t", bodies)]) == {}
    ((topic, published, attributes),) = recorder.groups
    assert (topic, published) == ("t", bodies)
    assert attributes == Attributes(keys=[b"u1", b"7", b'{"a":[1]}', None, None, "ü".encode()])


async def test_headers_are_added_to_those_that_a_message_has() -> None:
    recorder = Recorder()
    keying = Keying(None, (("kind", compile_expression(".k")), ("n", compile_expression(".n"))))
    had = Attributes(keys=[b"k"], headers=[[("old", b"1")]], timestamps=[5])
    known = FixedAttributes([had], [[NO_VARIABLES]])
    await KeyedPublisher(recorder, keying).publish([("t", [b'{"k":"x","n":2}'])], attributes=known)
    await KeyedPublisher(recorder, keying).publish([("t", [b'{"k":"x"}'])])
    assert recorder.groups[0][2] == had._replace(headers=[[("old", b"1"), ("kind", b"x"), ("n", b"2")]])
    assert recorder.groups[1][2].headers == [[("kind", b"x")]]


async def test_a_header_replaces_those_of_its_name_unless_it_has_no_value() -> None:
    recorder = Recorder()
    keying = Keying(None, (("a", compile_expression("$headers.a | length")), ("b", compile_expression(".missing"))))
    had = Attributes(headers=[[("a", b"1"), ("b", b"2"), ("a", b"3")]])
    row = [None, {"a": ["1", "3"], "b": "2"}, *NO_VARIABLES[2:]]
    await KeyedPublisher(recorder, keying).publish([("t", [b"{}"])], attributes=FixedAttributes([had], [[row]]))
    assert recorder.groups[0][2].headers == [[("b", b"2"), ("a", b"2")]]


async def test_what_fails_passes_as_it_was_where_that_is_asked_for() -> None:
    recorder = Recorder()
    publisher = KeyedPublisher(recorder, Keying(KEY, (("n", compile_expression(".n")),)), passes=True)
    had = Attributes(keys=[b"old", b"old"], headers=[[("n", b"0")], [("n", b"0")]])
    known = FixedAttributes([had], [[NO_VARIABLES] * 2])
    assert await publisher.publish([("t", [b"no JSON", b'{"user":"u","n":1}'])], attributes=known) == {}
    expected = Attributes(keys=[b"old", b"u"], headers=[[("n", b"0")], [("n", b"1")]])
    assert recorder.groups == [("t", [b"no JSON", b'{"user":"u","n":1}'], expected)]
    assert publisher.let_through == 1


async def test_what_fails_is_refused_by_its_place_and_all_else_is_published() -> None:
    recorder = Recorder()
    bodies = [b"no JSON", b'{"user":1}', b'{"user":"bad"}', b"[]", b'{"user":2}']
    refused = await KeyedPublisher(recorder, Keying(KEY)).publish([("s", [b'{"user":0}']), ("t", bodies)])
    assert {place: str(error).partition(":")[0] for place, error in refused.items()} == {
        (1, 0): "--key", (1, 3): "--key", (1, 2): "too large",
    }  # fmt: skip
    assert [(topic, published) for topic, published, _ in recorder.groups] == [
        ("s", [b'{"user":0}']), ("t", [bodies[1], bodies[2], bodies[4]]),
    ]  # fmt: skip
    assert recorder.groups[1][2].keys == [b"1", b"bad", b"2"]


async def test_ids_for_the_broker_s_own_search_for_duplicates() -> None:
    recorder = Recorder()
    keying = Keying(dedupe_id=compile_expression(".id"))
    had = Attributes(keys=[b"k"] * 3, headers=[[("a", b"1")]] * 3)
    known = FixedAttributes([had], [[NO_VARIABLES] * 3])
    refused = await KeyedPublisher(recorder, keying).publish(
        [("t", [b'{"id":"m1"}', b"no JSON", b'{"id":null}'])], attributes=known
    )
    assert list(refused) == [(0, 1)]
    assert "--dedupe-id" in str(refused[0, 1])
    assert recorder.groups[0][2] == Attributes([b"k"] * 2, [[("a", b"1")]] * 2, dedupe_ids=[b"m1", None])
