"""The browser's own EventSource on /sub: it gets what comes, and after a break what is left, once."""

from __future__ import annotations

from harness.brokers import Broker
from harness.gateway import Gateway
from harness.waiting import wait_until

from tests.browser.conftest import Browser
from tests.pubsub_http.conftest import MakeGateway
from tests.pubsub_http.test_documented import block, served

LISTEN = """(() => {
    window.came = []; window.sessions = [];
    const source = window.source = new EventSource(arguments[0]);
    source.onmessage = (event) => window.came.push([event.lastEventId, JSON.parse(event.data).body]);
    source.addEventListener("session", (event) => window.sessions.push(event.data));
    return true;
})()"""


def test_messages_with_their_ids(browser: Browser, gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"one", "zwölf\n".encode()])
    browser.open(f"{gateway.url}/ping")
    browser.run(LISTEN, f"{gateway.url}/sub?topic={topic}&channel=me")
    browser.wait("window.came.length === 2")
    came = browser.run("window.came")
    assert [body for _, body in came] == ["one", "zwölf\n"]  # type: ignore[attr-defined]
    assert all(len(ident.partition(":")[0]) == 16 for ident, _ in came)  # type: ignore[attr-defined]
    broker.wait_held(topic, "me", 0)
    browser.run("window.source.close()")
    broker.wait_clients(topic, "me", 0)


def test_a_break_and_nothing_is_lost(browser: Browser, make_gateway: MakeGateway, broker: Broker, topic: str) -> None:
    gateway = make_gateway(broker)
    broker.create(topic, "me")
    browser.open(f"{gateway.url}/ping")
    browser.run(
        LISTEN, f"{gateway.url}/sub?topic={topic}&channel=me&timeout=0.7"
    )  # it ends, and the browser comes back
    for number in range(12):
        broker.fill(topic, [b"%d" % number])
        browser.wait(f"window.came.length >= {number + 1}")
    bodies = [int(body) for _, body in browser.run("window.came")]  # type: ignore[attr-defined]
    assert bodies == list(range(12))
    browser.run("window.source.close()")


def test_acknowledged_by_the_page(browser: Browser, gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"a", b"b"])
    browser.open(f"{gateway.url}/ping")
    browser.run(LISTEN, f"{gateway.url}/sub?topic={topic}&channel=me&ack=client")
    browser.wait("window.came.length === 2 && window.sessions.length === 1")
    browser.run("fetch(`/finish?session=${window.sessions[0]}`, {method: 'POST', body: window.came[0][0]}) && true")
    wait_until(lambda: broker.depth(topic, "me").held == 1)
    browser.run("window.source.close()")
    broker.wait_held(topic, "me", 1)


def test_a_page_of_another_site_gets_nothing(
    browser: Browser, gateway: Gateway, make_gateway: MakeGateway, broker: Broker, topic: str
) -> None:
    """What a browser would let another site do without being told: an image, a form, a script's fetch without CORS."""
    broker.fill(topic, [b"a"])
    other = make_gateway(broker)
    browser.open(f"{other.url}/ping")
    target = f"{gateway.url.replace('127.0.0.1', 'localhost')}/message?topic={topic}&channel=me"
    browser.run(
        "(window.tried = 0, new Promise((done) => { const image = new Image(); image.onerror = done;"
        " image.src = arguments[0]; }).then(() => fetch(arguments[0], {mode: 'no-cors'}))"
        ".then(() => fetch(arguments[0].replace('message', 'pub'), {mode: 'no-cors', method: 'POST', body: 'x'}))"
        ".finally(() => { window.tried = 1; }), true)",
        target,
    )
    browser.wait("window.tried === 1")
    assert broker.bodies(topic, "me") == [b"a"]


def test_readmes_script(browser: Browser, gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.fill(topic, [b"from the queue"])
    browser.open(f"{gateway.url}/ping")
    script = served(block("js"), gateway, topic).replace("console.log(", "window.said.push(")
    browser.driver.execute_script(f"window.said = []; {script}; window.source = source")
    browser.wait("window.said.length === 1")
    assert browser.run("window.said[0]") == "from the queue"
    browser.run("window.source.close()")
