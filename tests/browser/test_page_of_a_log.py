"""The page before an engine whose topics keep their messages, with keys and headers: what it counts, what it shows of a
message, and a message that is published with a key."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator

import pytest
from selenium.webdriver.common.keys import Keys

from qtools.attributes import TOMBSTONE, Attributes
from qtools.cli.run import Signals
from qtools.names import Subscription
from qtools.pubsub_http.app import serve_on
from qtools.pubsub_http.options import GatewayOptions
from qtools.sockets import listen
from tests.browser.conftest import Browser
from tests.browser.test_page import BODIES, LISTENING, ROWS, contrast
from tests.engines.memory import EVERYTHING, MemoryEngine

DEADLINE = 15.0  # s
NOT_QUEUES = EVERYTHING._replace(engine="Log")
ROW = "document.querySelector('[data-topic=\"orders\"]')"


class Served:
    """A gateway in a thread of this process."""

    def __init__(self) -> None:
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._is_ready.wait(DEADLINE)

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.engine = MemoryEngine(NOT_QUEUES)
        self._signals = Signals()
        with listen("127.0.0.1:0", "--http-address") as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            self._is_ready.set()
            await serve_on(listening, GatewayOptions(self.engine), self._signals)

    def put(self, bodies: list[bytes], attributes: Attributes | None = None) -> None:
        """Publish to the topic `orders`."""
        self._call(lambda: self.engine.put("orders", bodies, attributes))

    def create(self, *groups: str) -> None:
        self._call(lambda: [self.engine.channel(Subscription("orders", group)) for group in groups])

    def _call(self, do) -> None:  # type: ignore[no-untyped-def]
        done = threading.Event()
        self.loop.call_soon_threadsafe(lambda: (do(), done.set()))
        assert done.wait(DEADLINE)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self._signals.handle, signal.SIGTERM)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.close()


def test_a_topic_has_messages_and_each_group_a_lag(browser: Browser, served: Served) -> None:
    served.put([b"x"] * 181)
    served.create("billing", "search", "audit")
    browser.open(f"{served.url}/#orders")
    browser.wait(f"{ROWS}.includes('orders')")
    columns = browser.run("[...document.querySelectorAll('.columns span')].map((each) => each.textContent)")
    assert columns == ["Topic", "Messages", "Lag", "Rate"]
    shown = f"[...{ROW}.querySelectorAll('.row > .number, .channel > span')].map((each) => each.textContent)"
    # The first group of the memory engine gets what the topic has kept, later ones begin at its end.
    assert browser.run(shown) == ["181", "", "audit", "", "0", "", "billing", "", "181", "", "search", "", "0", ""]
    browser.wait("document.getElementById('about').textContent.endsWith('181 messages in the topic')")
    assert browser.complaints() == []


def test_what_a_message_has_besides_its_body(browser: Browser, served: Served) -> None:
    served.create("own")
    browser.open(f"{served.url}/#orders")
    browser.wait(LISTENING, "")
    headers = [[("trace", b"17"), ("a", b"1"), ("a", b"\xff"), ("<b>", None)], (), (), ()]
    attributes = Attributes([b"user-17", b"\xff", None, b""], headers)
    served.put([TOMBSTONE, b"", b"null", b'{"a":1}'], attributes)
    browser.wait(f"{BODIES}.length === 4")
    assert browser.run(BODIES) == ['{\n  "a": 1\n}', "null", "empty body", "no body"]
    messages = "[...document.querySelectorAll('#messages .message')]"
    texts = f"{messages}.map((each) => each.querySelector(arguments[0]).textContent)"
    assert browser.run(texts, ".key") == ["key (empty)", "", "key base64: /w==", "key user-17"]
    assert browser.run(texts, ".id") == [f"partition 0 · offset {offset}" for offset in (3, 2, 1, 0)]
    assert browser.run(texts, ".headers") == ["", "", "", "trace 17a 1, base64: /w==<b> no value"]
    assert browser.run("document.querySelectorAll('#messages pre.none').length") == 2
    browser.keys("f")
    browser.keys('$key == "user-18"')
    browser.wait(LISTENING, '$key == "user-18"')
    served.put([b"other", b"this"], Attributes([b"user-17", b"user-18"]))
    browser.wait(f"{BODIES}.length === 1")
    assert browser.run(BODIES) == ["this"]
    assert browser.complaints() == []


def test_a_message_is_published_with_a_key(browser: Browser, served: Served) -> None:
    served.create("own")
    browser.open(f"{served.url}/#orders")
    browser.wait(LISTENING, "")
    browser.wait("!document.getElementById('key').hidden")
    browser.run("document.getElementById('key').focus()")
    browser.keys("user-17", Keys.TAB, "hello")
    browser.keys(Keys.CONTROL, Keys.ENTER)
    browser.wait(f"{BODIES}[0] === 'hello'")
    assert served.engine.topic("orders").keys == [b"user-17"]
    assert browser.complaints() == []


@pytest.mark.parametrize("look", [{}, {"dark": True}, {"phone": True}, {"phone": True, "dark": True}])
def test_how_it_looks(browser: Browser, served: Served, look: dict[str, bool]) -> None:
    """Nothing beyond the edge, nothing too pale to read; a picture of each is kept."""
    served.create("billing", "search")
    browser.open(f"{served.url}/#orders", **look)
    browser.wait(LISTENING, "")
    bodies = [b'{"type":"purchase","amount":17,"text":"%s"}' % (b"long " * 40), b"", TOMBSTONE] * 3
    headers = [[("trace-id", b"0af7651916cd43dd8448eb211c80319c"), ("content-type", b"application/json")], (), ()] * 3
    served.put(bodies, Attributes([b"user-17", b"k" * 200, None] * 3, headers))
    browser.wait(f"{BODIES}.length === 9")
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    browser.wait("!document.getElementById('key').hidden")
    for what in (".key", "pre.none", ".headers"):
        color, ground = browser.run(
            f"[getComputedStyle(document.querySelector('#messages {what}')).color,"
            " getComputedStyle(document.querySelector('.message')).backgroundColor]"
        )  # type: ignore[misc]
        assert contrast(ground, color) > 4.5, what  # WCAG 2.2, 1.4.3
    name = "-".join(["page-of-a-log", *look])
    assert browser.picture(name).stat().st_size > 20_000
    if look.get("phone"):
        browser.run("document.getElementById('back').click()")
        browser.wait("document.querySelector('.topics').offsetParent !== null")
        assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
        browser.picture(name + "-topics")
