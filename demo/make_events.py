"""Write demo/events.jsonl: 12,000 records in the shape of an analytics API, the same bytes on every machine.

    $ python demo/make_events.py                 writes demo/events.jsonl
    $ python demo/make_events.py --output FILE

One JSON object a line: `page`, `track`, `identify` and `purchase`, as browsers, phones and a shop's server would send
them over six hours of a morning. Visitors come in sessions, more of them towards noon; a few products and pages get
most of the views; names and searches are in many scripts; and one record in a hundred was sent twice, by a sender that
did not hear the answer to its first attempt.

Nobody in here is real: the addresses are from the ranges kept for documentation (RFC 5737, RFC 3849), the mail goes to
example.com.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

SEED = 20260314
COUNT = 12_000
BEGIN = datetime(2026, 3, 14, 6, 0, 0, tzinfo=UTC)
HOURS = 6
SENT_TWICE = 0.01
OUTPUT = Path(__file__).with_name("events.jsonl")

Record = dict[str, Any]
T = TypeVar("T")

NAMES = [
    "Zoë Brandt", "José Álvarez", "Łukasz Nowak", "Søren Dahl", "Nguyễn Thị Hà", "山田 花子", "김민준", "Иван Петров",
    "Ελένη Δήμου", "محمد علي", "דנה לוי", "आरव शर्मा", "Ana Souza", "John Smith", "Mary O'Neill", "Kofi Mensah",
    "Siobhán Byrne", "Günther Groß", "Chloé Dubois", "王小明", "Emma Jones", "Liam Brown", "Noor van Dijk", "Ada Weiss",
]  # fmt: skip
PRODUCTS = [  # sku, name, price in cents; the first ones are the most popular
    ("MUG-01", "Mug", 1290), ("TEA-07", "Sencha 煎茶", 890), ("BAG-03", "Canvas bag", 2450),
    ("CAF-11", "Café crème", 1175), ("KET-02", "Kettle", 5990), ("PEN-20", "Fountain pen", 3400),
    ("LMP-05", "Lamp “Søvn”", 12900), ("BOK-42", "Notebook", 1500), ("CHR-09", "Chair", 24900),
    ("CLK-13", "Clock", 7600), ("RUG-08", "Rug", 18950), ("DSK-01", "Desk", 45900),
]  # fmt: skip
PAGES = [
    "/", "/sale", "/cart", "/search", "/tea", "/coffee", "/checkout", "/new", "/help/returns", "/blog/brühen", "/about",
]  # fmt: skip
SEARCHES = [
    "mug", "tea", "green tea", "抹茶", "theière", "кружка", "lamp", "gift 🎁", "desk oak", "schöne Uhr", "çay", "شاي",
]  # fmt: skip
AGENTS = [
    "Mozilla/5.0 (Windows) Chrome/122", "Mozilla/5.0 (iPhone) Safari/604", "Mozilla/5.0 (Macintosh) Safari/605",
    "Mozilla/5.0 (Android) Chrome/122", "Mozilla/5.0 (Linux) Firefox/123",
]  # fmt: skip
LOCALES = ["en-US", "en-GB", "de-DE", "fr-FR", "es-ES", "ja-JP", "pt-BR", "pl-PL", "ko-KR", "ar-EG"]
CURRENCIES = ["USD", "EUR", "EUR", "GBP", "JPY"]
PLANS = ["free", "free", "plus", "pro"]


class Dice:
    """Chance, made from random.random() alone: the one method whose numbers Python promises never to change."""

    def __init__(self, seed: int) -> None:
        self.roll = random.Random(seed).random

    def below(self, limit: int) -> int:
        return int(self.roll() * limit)

    def one_of(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def popular(self, items: Sequence[T]) -> T:
        """One of `items`, the first ones much more often than the last."""
        return items[int(self.roll() * self.roll() * len(items))]

    def digits(self, count: int) -> str:
        return "".join(["0123456789abcdef"[self.below(16)] for _ in range(count)])


class Visitor:
    """One person with one device, on one visit."""

    def __init__(self, dice: Dice) -> None:
        self.dice = dice
        self.anonymous_id = dice.digits(12)
        self.user_id = f"u{1000 + int(9000 * dice.roll() * dice.roll())}" if dice.roll() < 0.45 else None
        self.locale = dice.popular(LOCALES)
        self.currency = dice.one_of(CURRENCIES)
        self.ip = address(dice)
        self.agent = dice.popular(AGENTS)
        self.library = "phone/3.2" if "iPhone" in self.agent or "Android" in self.agent else "web/2.11"

    def visit(self) -> Iterator[Record]:
        """The records of this visit, in order, without their timestamps."""
        yield self.page("/" if self.dice.roll() < 0.5 else self.dice.popular(PAGES))
        if self.user_id or self.dice.roll() < 0.08:
            yield self.identify()
        cart: list[tuple[str, str, int]] = []
        while self.dice.roll() < 0.86:  # about seven more steps, and now and then forty
            step = self.dice.roll()
            product = self.dice.popular(PRODUCTS)
            sku, name, price = product
            if step < 0.42:
                yield self.page(self.dice.popular(PAGES))
            elif step < 0.72:
                yield self.track("Product Viewed", {"sku": sku, "name": name, "price": price / 100})
            elif step < 0.84:
                quantity = 1 + self.dice.below(3)
                cart += [product] * quantity
                yield self.track("Product Added", {"sku": sku, "quantity": quantity, "price": price / 100})
            elif step < 0.94:
                yield self.track(
                    "Products Searched", {"query": self.dice.popular(SEARCHES), "results": self.dice.below(60)}
                )
            else:
                yield self.track("Video Played", {"seconds": self.dice.below(240), "muted": self.dice.roll() < 0.7})
        if cart and self.dice.roll() < 0.55:
            yield self.page("/checkout")
            yield self.purchase(cart)

    def page(self, path: str) -> Record:
        return self.record("page", {"name": path.strip("/") or "home"}, path)

    def track(self, event: str, properties: Record) -> Record:
        return self.record("track", {"event": event, "properties": properties}, None)

    def identify(self) -> Record:
        self.user_id = self.user_id or f"u{10_000 + self.dice.below(90_000)}"
        traits = {
            "name": self.dice.one_of(NAMES),
            "email": f"{self.user_id}@example.com",
            "plan": self.dice.one_of(PLANS),
        }
        return self.record("identify", {"traits": traits}, None)

    def purchase(self, cart: list[tuple[str, str, int]]) -> Record:
        """The shop's own server reports what was paid: it knows no browser and no page."""
        properties = {
            "orderId": f"o-{self.dice.digits(8)}",
            "amount": sum(price for _, _, price in cart) / 100,
            "currency": self.currency,
            "items": [sku for sku, _, _ in cart],
        }
        if self.dice.roll() < 0.15:
            properties["coupon"] = self.dice.one_of(["SPRING10", "FRÜHLING", "春SALE"])
        record = {"type": "purchase", "messageId": self.dice.digits(20), **self.who()}
        return record | {
            "event": "Order Completed",
            "properties": properties,
            "context": {"library": "shop-server/1.4"},
        }

    def record(self, kind: str, words: Record, path: str | None) -> Record:
        context: Record = {"ip": self.ip, "userAgent": self.agent, "locale": self.locale, "library": self.library}
        if path is not None:
            context["page"] = {"path": path}
        return {"type": kind, "messageId": self.dice.digits(20), **self.who(), **words, "context": context}

    def who(self) -> Record:
        return {"userId": self.user_id} if self.user_id else {"anonymousId": self.anonymous_id}


def address(dice: Dice) -> str:
    if dice.roll() < 0.12:
        return f"2001:db8::{dice.digits(4).lstrip('0') or '1'}"
    return f"{dice.one_of(['192.0.2', '198.51.100', '203.0.113'])}.{1 + dice.below(254)}"


def make_records(count: int = COUNT, seed: int = SEED) -> list[Record]:
    """`count` records in the order in which they arrived."""
    dice = Dice(seed)
    arrived: list[tuple[float, int, Record]] = []  # when, in seconds; a number that settles ties; what
    wanted = (
        count + count // 20
    )  # so that the end is cut in mid-morning, not thinned out to the last visit's last click
    while len(arrived) < wanted:
        clock = max(dice.roll(), dice.roll()) * HOURS * 3600  # the later of two is late more often: the day fills up
        for record in Visitor(dice).visit():
            stamped = {
                "type": record.pop("type"),
                "messageId": record.pop("messageId"),
                "timestamp": rfc3339(clock),
                **record,
            }
            arrived.append((clock, len(arrived), stamped))
            if dice.roll() < SENT_TWICE:
                arrived.append((clock + 1 + 29 * dice.roll(), len(arrived), stamped))
            clock += 2 + 60 * dice.roll() * dice.roll()
    arrived.sort(key=lambda item: item[:2])
    return [record for _, _, record in arrived[:count]]


def rfc3339(seconds: float) -> str:
    moment = BEGIN + timedelta(milliseconds=int(seconds * 1000))
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def as_line(record: Record) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo's event records: the same bytes every time.")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE", help="default: %(default)s")
    output = parser.parse_args().output
    output.write_bytes(b"".join(map(as_line, make_records())))


if __name__ == "__main__":
    main()
