"""The page in a real browser: topics and their numbers, a live tail, filters, publishing; by hand and by keyboard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import MakeBroker
from harness.brokers import Broker
from harness.gateway import Gateway
from harness.waiting import wait_until
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import Browser
from tests.pubsub_http.conftest import MakeGateway

BODIES = "[...document.querySelectorAll('#messages pre')].map((each) => each.textContent)"
LISTENING = "document.getElementById('tail').dataset.listening === arguments[0]"
ROWS = "[...document.querySelectorAll('#list > li')].map((each) => each.dataset.topic)"


def open_topic(browser: Browser, gateway: Gateway, broker: Broker, topic: str, **look: bool) -> None:
    """Open the page at `topic`, and wait until its stream is there."""
    broker.create(topic, "archive")
    browser.open(f"{gateway.url}/#{topic}", **look)
    browser.wait(LISTENING, "")


def test_topics_and_channels_with_their_numbers(browser: Browser, gateway: Gateway, broker: Broker, topic: str) -> None:
    broker.create(topic, "archive")
    broker.fill(topic, [b"x"] * 1234)
    browser.open(gateway.url)
    browser.wait(f"{ROWS}.includes(arguments[0])", topic)
    row = f"document.querySelector('[data-topic=\"{topic}\"]')"
    browser.wait(f"{row}.querySelector('.depth').textContent === '1.2k'")
    assert browser.run(f"{row}.querySelector('.channel .name').textContent") == "archive"
    assert browser.run(f"{row}.querySelector('.channel .clients').textContent") == "no readers"
    broker.fill(topic, [b"x"] * 500)
    browser.wait(f"Number({row}.querySelector('.rate .number').textContent.replace('k', '')) > 0")
    browser.wait(f"{row}.querySelector('.spark .line').getAttribute('d').length > 10")
    assert browser.complaints() == []


def test_messages_come_as_they_are_published_and_no_channel_loses_any(
    browser: Browser, gateway: Gateway, broker: Broker, topic: str
) -> None:
    open_topic(browser, gateway, broker, topic)
    broker.fill(topic, [b'{"a":{"deep":[1,2]},"big":12345678901234567890,"ok":true}', b"plain text", b"\xff\xfe"])
    browser.wait(f"{BODIES}.length === 3")
    packed, plain, pretty = browser.run(BODIES)  # type: ignore[misc]
    assert (plain, packed) == ("plain text", "base64: //4=")
    assert pretty == '{\n  "a": {\n    "deep": [1, 2]\n  },\n  "big": 12345678901234567890,\n  "ok": true\n}'
    browser.run("document.getElementById('pretty').click()")
    assert browser.run(f"{BODIES}[2]") == '{"a":{"deep":[1,2]},"big":12345678901234567890,"ok":true}'
    broker.wait_held(topic, "archive", 3)
    assert browser.complaints() == []


@pytest.mark.parametrize("fragment", ["%", "%ff", "a%2", "%E0%A4%A"])
def test_an_address_that_was_cut_names_no_topic(
    browser: Browser, gateway: Gateway, broker: Broker, topic: str, fragment: str
) -> None:
    broker.create(topic, "archive")
    browser.open(f"{gateway.url}/#{fragment}")
    browser.wait(f"{ROWS}.includes(arguments[0])", topic)
    assert not browser.run("document.getElementById('welcome').hidden")
    assert browser.complaints() == []


def test_what_is_in_a_message_stays_text(browser: Browser, gateway: Gateway, broker: Broker, topic: str) -> None:
    open_topic(browser, gateway, broker, topic)
    evil = '<img src=x onerror="window.owned = 1"><script>window.owned = 1</script>'
    broker.fill(topic, [evil.encode(), json.dumps({evil: evil}).encode()])
    browser.wait(f"{BODIES}.length === 2")
    assert browser.run(f"{BODIES}[1]") == evil
    assert browser.run("document.querySelectorAll('#messages img, #messages script').length") == 0
    assert browser.run("window.owned") is None
    assert browser.complaints() == []


def test_the_filter_box_takes_text_and_expressions(
    browser: Browser, gateway: Gateway, broker: Broker, topic: str
) -> None:
    open_topic(browser, gateway, broker, topic)
    browser.keys("f")
    browser.keys(".n >= 2")
    browser.wait(LISTENING, ".n >= 2")
    broker.fill(topic, [b'{"n":1}', b'{"n":2}', b"no JSON", b'{"n":3}'])
    browser.wait(f"{BODIES}.length === 2")
    assert browser.run(BODIES) == ['{\n  "n": 3\n}', '{\n  "n": 2\n}']
    browser.run("document.getElementById('where').select()")
    browser.keys(".n >=")
    browser.wait("!document.getElementById('trouble').hidden")
    assert "column" in str(browser.run("document.getElementById('trouble').textContent"))
    browser.complaints()  # the refusal is among them
    browser.run("document.getElementById('where').select()")
    browser.keys("NEEDLE")
    browser.wait(LISTENING, "NEEDLE")
    broker.fill(topic, [b"hay", b"a needle", b"hay"])
    browser.wait(f"{BODIES}.length === 1")
    assert browser.run(BODIES) == ["a needle"]


def test_pause_keeps_what_comes(browser: Browser, gateway: Gateway, broker: Broker, topic: str) -> None:
    open_topic(browser, gateway, broker, topic)
    browser.keys(Keys.SPACE)
    broker.fill(topic, [b"a", b"b"])
    browser.wait("document.getElementById('pause').textContent === 'Go on (2 new)'")
    assert browser.run(BODIES) == []
    browser.keys(Keys.SPACE)
    browser.wait(f"{BODIES}.length === 2")


def test_publish_with_the_keyboard_alone(browser: Browser, gateway: Gateway, broker: Broker, topic: str) -> None:
    """From the page's start: find the topic, open it, write, send."""
    broker.create(topic, "archive")
    browser.open(gateway.url)
    browser.wait(f"{ROWS}.includes(arguments[0])", topic)
    browser.keys("/")
    browser.keys(topic)
    browser.wait(f"{ROWS}.length === 1")
    browser.keys(Keys.ARROW_DOWN)
    browser.keys(Keys.ENTER)
    browser.wait(LISTENING, "")
    browser.keys("p")
    browser.keys("one\ntwo")
    browser.keys(Keys.CONTROL, Keys.ENTER)
    browser.wait(f"{BODIES}[0] === 'one\\ntwo'")
    assert browser.run("document.getElementById('sent').textContent") == "published"
    browser.run("document.getElementById('lines').click()")
    browser.keys("three\nfour")
    browser.keys(Keys.CONTROL, Keys.ENTER)
    browser.wait(f"{BODIES}.length === 3")
    assert browser.run("document.getElementById('sent').textContent") == "2 published"
    browser.keys(Keys.ESCAPE)
    browser.keys(Keys.ESCAPE)
    browser.wait("document.getElementById('tail').hidden")
    assert [body.decode() for body in broker.bodies(topic, "archive")] == ["one\ntwo", "three", "four"]
    assert browser.complaints() == []


def test_a_token_is_asked_for_and_forgotten_with_the_tab(
    browser: Browser, make_gateway: MakeGateway, broker: Broker, topic: str, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text('[[token]]\nname = "me"\ntoken = "a-long-secret-token"\nsubscribe = ["*"]\n')
    gateway = make_gateway(broker, "--token-file", str(tokens))
    broker.create(topic, "archive")
    browser.open(gateway.url)
    browser.wait("document.getElementById('gate').open")
    browser.keys("a-long-secret-token")
    browser.keys(Keys.ENTER)
    browser.wait(f"{ROWS}.includes(arguments[0])", topic)
    assert browser.run("localStorage.length") == 0
    assert browser.run("document.cookie") == ""


def test_the_broker_goes_and_comes_back(
    browser: Browser, make_gateway: MakeGateway, make_broker: MakeBroker, topic: str
) -> None:
    broker = make_broker()
    gateway = make_gateway(broker)
    open_topic(browser, gateway, broker, topic)
    broker.stop()
    browser.wait("document.getElementById('state').classList.contains('bad')")
    broker.start()
    browser.wait("document.getElementById('state').classList.contains('good')")
    wait_until(lambda: len(broker.channels(topic)) == 2)
    broker.fill(topic, [b"again"])
    browser.wait(f"{BODIES}[0] === 'again'")


@pytest.mark.parametrize("look", [{}, {"dark": True}, {"phone": True}, {"phone": True, "dark": True}])
def test_how_it_looks(browser: Browser, gateway: Gateway, broker: Broker, topic: str, look: dict[str, bool]) -> None:
    """Nothing beyond the edge, nothing too pale to read; a picture of each is kept."""
    open_topic(browser, gateway, broker, topic, **look)
    broker.fill(topic, [json.dumps({"type": "purchase", "amount": n, "text": "long " * 40}).encode() for n in range(9)])
    browser.wait(f"{BODIES}.length === 9")
    assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
    ground, ink = browser.run(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )  # type: ignore[misc]
    assert contrast(ground, ink) > 12
    soft = browser.run("getComputedStyle(document.getElementById('about')).color")
    assert contrast(ground, soft) > 4.5  # WCAG 2.2, 1.4.3
    name = "-".join(["page", *look]) or "page"
    assert browser.picture(name).stat().st_size > 20_000
    if look.get("phone"):
        assert not browser.run("document.querySelector('.topics').offsetParent")
        browser.run("document.getElementById('back').click()")
        browser.wait("document.querySelector('.topics').offsetParent !== null")
        assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
        browser.picture(name + "-topics")


def contrast(one: object, other: object) -> float:
    """The contrast of two colours, as `rgb(1, 2, 3)` (WCAG 2.2, relative luminance)."""

    def luminance(color: object) -> float:
        parts = [int(part) / 255 for part in str(color).partition("(")[2].rstrip(")").split(",")[:3]]
        red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_files_load_nothing_from_elsewhere(gateway: Gateway) -> None:
    answers = {path: gateway.get(path) for path in ("/", "/page.css", "/page.js")}
    for path, answer in answers.items():
        assert answer.status_code == 200, path
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "http://" not in answer.text
        assert "https://" not in answer.text
    assert gateway.client.head("/").content == b""
