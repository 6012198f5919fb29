"""Any request that may take the fast path gets the answer that the application gives: status, headers and body."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtools.engines.contract import PublisherOptions
from qtools.errors import AuthError, BrokerError, NetworkError
from qtools.flow.contract import Refused
from qtools.pubsub_http.gateway import Gateway
from qtools.pubsub_http.options import GatewayOptions
from qtools.web.fast_path import length_of
from qtools.web.request_body import Headers
from tests.engines.memory import MemoryEngine, MemoryPublisher

TOKENS = """
[[token]]
name = "shop"
token = "a-secret-of-the-shop"
publish = ["orders.*"]
[[token]]
name = "reader"
token = "a-secret-of-the-reader"
subscribe = ["*"]
[[token]]
name = "slow"
token = "a-secret-of-the-slow"
publish = ["*"]
rate = 0.001
"""
# What publishing to a topic of this name raises.
ERRORS: dict[str, Exception] = {
    "orders.away": NetworkError("memory", "gone"),
    "orders.refused": BrokerError("E_BAD_TOPIC", "no such topic", "MPUB"),
    "orders.forbidden": AuthError("E_UNAUTHORIZED", "not yours", "MPUB"),
    "orders.defect": ZeroDivisionError("a defect of ours"),
}


class FailingPublisher(MemoryPublisher):
    async def publish(self, groups: Sequence[tuple[str, Sequence[bytes]]], delay_ms: int | None = None) -> Refused:
        for topic, _ in groups:
            if topic in ERRORS:
                raise ERRORS[topic]
        return await super().publish(groups, delay_ms)


class FailingEngine(MemoryEngine):
    def publisher(self, options: PublisherOptions | None = None) -> FailingPublisher:
        return FailingPublisher(self, options or PublisherOptions())


def one_of(*values: bytes | None) -> st.SearchStrategy[bytes | None]:
    return st.sampled_from(values)


names = st.sampled_from(["orders.a", "letters", *ERRORS])
heads = st.fixed_dictionaries(
    {
        b"host": one_of(b"localhost", b"127.0.0.1:80", b"pub.example", b"evil.example", b"", None),
        b"origin": one_of(None, None, b"http://localhost", b"https://good.example", b"https://evil.example"),
        b"sec-fetch-site": one_of(None, None, b"same-origin", b"cross-site"),
        b"authorization": one_of(
            b"Bearer a-secret-of-the-shop", b"bearer a-secret-of-the-shop", b"Bearer a-secret-of-the-reader",
            b"Bearer a-secret-of-the-slow", b"Bearer unknown", b"Basic a-secret-of-the-shop", None,
        ),
        b"content-type": one_of(None, b"application/json"),
        b"idempotency-key": one_of(None, None, None, b"key"),
        b"x-forwarded-proto": one_of(None, b"https"),
        b"x-forwarded-host": one_of(None, b"good.example"),
        b"access-control-request-method": one_of(None, b"POST"),
    }
)  # fmt: skip
targets = st.builds(
    "/pub{}".format,
    st.one_of(
        names.map("?topic={}".format),
        names.map("?topic={}".format),
        st.sampled_from(["", "?topic=", "?topic=a%20b", "?topic=a&defer=1", "?topic=a&defer=x", "?topic=a&topic=b"]),
    ),
)
bodies = st.sampled_from([b"x", b"", b"x" * 1500, b"x" * 3000])  # taken; empty; refused by the engine; too long
requests = st.lists(st.tuples(targets, heads, bodies, st.booleans()), min_size=1, max_size=6)
configurations = st.fixed_dictionaries(
    {
        "tokens": st.booleans(),
        "hosts": st.sampled_from([None, frozenset({"pub.example"})]),
        "origins": st.sampled_from([frozenset(), frozenset({"https://good.example"}), frozenset("*")]),
        "behind_proxy": st.booleans(),
        "rate": st.sampled_from([None, 0.001]),
    }
)
Given = tuple[int, Headers, bytes]


async def by_application(gateway: Gateway, target: str, headers: Headers, body: bytes, secure: bool) -> Given:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    path, _, query = target.partition("?")
    scope = {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "scheme": "https" if secure else "http", "headers": list(headers),
    }  # fmt: skip
    await gateway.app(scope, receive, send)
    start, end = sent
    return start["status"], start["headers"], end["body"]


async def by_fast_path(gateway: Gateway, target: str, headers: Headers, body: bytes, secure: bool) -> Given | None:
    """None if the request has to go to the application."""
    length = length_of(headers)
    handler = gateway.fast_path(target.encode(), headers, length, secure) if length else None
    if handler is None:
        return None
    answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    handler(body, answered.set_result)
    head, _, body = (await answered).partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    pairs = [line.partition(b": ") for line in lines]
    return int(status.split()[1]), [(name, value) for name, _, value in pairs], body


def without_date(given: Given) -> Given:
    status, headers, body = given
    return status, [header for header in headers if header[0] != b"date"], body


Asked = tuple[str, dict[bytes, bytes | None], bytes, bool]  # target, head, body, over TLS


async def compare(options: dict[str, Any], asked: Sequence[Asked]) -> list[int]:
    """Ask two gateways that are alike the same; in one of them each request that may take the fast path does so.

    Returns the statuses that were answered on the fast path.
    """
    engines = [FailingEngine(), FailingEngine()]
    gateways = [Gateway(GatewayOptions(engine, max_msg_size=2000, **options)) for engine in engines]
    taken: list[int] = []
    for gateway in gateways:
        await gateway.start()
    try:
        for target, head, body, secure in asked:
            headers = [(name, value) for name, value in head.items() if value is not None]
            headers.append((b"content-length", b"%d" % len(body)))
            answer = await by_application(gateways[0], target, headers, body, secure)
            fast = await by_fast_path(gateways[1], target, headers, body, secure)
            if fast is None:
                fast = await by_application(gateways[1], target, headers, body, secure)
            else:
                taken.append(fast[0])
            assert without_date(fast) == without_date(answer)
        assert gateways[0].app.requests == gateways[1].app.requests
        assert {topic: engines[0].bodies(topic) for topic in engines[0].all} == {
            topic: engines[1].bodies(topic) for topic in engines[1].all
        }
    finally:
        for gateway in gateways:
            gateway.stop()
            await gateway.close()
    return taken


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    path.write_text(TOKENS)
    return str(path)


@given(configurations, requests)
@settings(max_examples=100, deadline=None)
def test_both_give_the_same_answer(token_file: str, configuration: dict[str, Any], asked: list[Asked]) -> None:
    with_tokens = configuration.pop("tokens")
    asyncio.run(compare(configuration | {"token_file": token_file if with_tokens else ""}, asked))


async def test_a_request_that_may_repeat_another_goes_to_the_application() -> None:
    head: dict[bytes, bytes | None] = {b"host": b"localhost", b"idempotency-key": b"key"}
    assert await compare({}, [("/pub?topic=events", head, b"x", False)] * 2) == []


@pytest.mark.parametrize(
    ("status", "topic", "head", "body"),
    [
        (200, "orders.a", {}, b"x"),
        (401, "orders.a", {b"authorization": None}, b"x"),
        (403, "letters", {}, b"x"),
        (403, "orders.a", {b"origin": b"https://evil.example"}, b"x"),
        (413, "orders.a", {}, b"x" * 1500),
        (429, "orders.a", {b"authorization": b"Bearer a-secret-of-the-slow"}, b"x"),
        (503, "orders.away", {}, b"x"),
        (502, "orders.refused", {}, b"x"),
        (403, "orders.forbidden", {}, b"x"),
        (500, "orders.defect", {}, b"x"),
    ],
)
async def test_each_kind_of_answer_is_given_on_the_fast_path(
    token_file: str, status: int, topic: str, head: dict[bytes, bytes | None], body: bytes
) -> None:
    """Otherwise the test above would compare the application with itself."""
    head = {b"host": b"localhost", b"authorization": b"Bearer a-secret-of-the-shop"} | head
    request = (f"/pub?topic={topic}", head, body, False)
    taken = await compare({"token_file": token_file}, [request, request])
    assert taken[1] == status
