"""Query parameters, declared once. In: a query string. Out: values, or a Refusal that names the parameter.

/openapi.json is made from the same declarations, so that the two cannot differ.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qs

from qtools.names import EPHEMERAL, LONGEST_NAME, MAX_NAME_LENGTH, is_valid_name
from qtools.web.request_body import Refusal

MOST_PARAMETERS = 100
LONGEST_REMEMBERED = 512  # bytes of a query whose values are cached

Values = Mapping[str, Any]
_BROKEN = re.compile(rb"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter. read: text → value, or ValueError, whose text continues "NAME …": what the value has to be."""

    name: str
    help: str
    read: Callable[[str], Any]
    schema: dict[str, Any] = field(hash=False)
    required: bool = False
    default: Any = None
    repeated: bool = False
    invalid: str = ""  # the error code for a value that is not valid; INVALID_ARG_NAME unless nsqd has its own
    capability: str = ""  # what the engine must be able to do for the values for which `needs` is true
    needs: Callable[[Any], bool] = bool

    def value(self, texts: Sequence[str]) -> Any:
        try:
            return [self.read(text) for text in texts] if self.repeated else self.read(texts[0])
        except ValueError as error:
            raise Refusal(400, self.invalid or f"INVALID_ARG_{self.name.upper()}", f"{self.name} {error}") from error


class Query:
    """The parameters of one address."""

    def __init__(self, *parameters: Parameter) -> None:
        self.parameters = parameters
        self._known = {each.name: each for each in parameters}
        self._remembered = lru_cache(maxsize=1024)(self._read)  # clients repeat their queries

    def read(self, raw: bytes) -> Values:
        """The values in `raw`, defaults included. An unknown parameter is refused: it may be a misspelt one."""
        return self._remembered(raw) if len(raw) <= LONGEST_REMEMBERED else self._read(raw)

    def _read(self, raw: bytes) -> Values:
        if _BROKEN.search(raw):
            raise Refusal(400, "INVALID_REQUEST", "the query has a % without two hex digits after it")
        try:
            texts_by_name = parse_qs(
                raw.decode("ascii"), keep_blank_values=True, max_num_fields=MOST_PARAMETERS, errors="strict"
            )
        except ValueError as error:
            raise Refusal(400, "INVALID_REQUEST", "the query is not UTF-8, or has too many parameters") from error
        values: dict[str, Any] = {}
        for name, texts in texts_by_name.items():
            known = self._known.get(name)
            if known is None:
                names = ", ".join(self._known) or "none"
                raise Refusal(400, "UNKNOWN_ARG", f"there is no parameter {name[:40]!r} here; there are: {names}")
            if len(texts) > 1 and not known.repeated:
                raise Refusal(400, f"INVALID_ARG_{name.upper()}", f"{name} is given more than once")
            values[name] = known.value(texts)
        for each in self.parameters:
            if each.name not in values:
                if each.required:
                    raise Refusal(
                        400, f"MISSING_ARG_{each.name.upper()}", f"the parameter {each.name} is missing: {each.help}"
                    )
                values[each.name] = each.default
        return values


# ── kinds ───────────────────────────────────────────────────────────────────────────────────────


def _name(text: str) -> str:
    if len(text) > LONGEST_NAME:  # the engine's own limit is checked in capabilities.py
        raise ValueError(f"has at most {LONGEST_NAME} characters")
    if not is_valid_name(text, LONGEST_NAME):
        raise ValueError(f"has letters, digits and . _ - only; {EPHEMERAL} may end it")
    return text


# A number as in JSON (RFC 8259, 6), or as people write it: .5, 5., +5, 007.
_NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]{1,5})?", re.ASCII)
LONGEST_NUMBER = 400  # characters: more digits than any double has


def _decimal(text: str) -> Decimal:
    if len(text) > LONGEST_NUMBER or not _NUMBER.fullmatch(text):
        raise ValueError
    return Decimal(text)


def _whole(text: str, least: int, most: int) -> int:
    try:
        number = _decimal(text)
        if least <= number <= most and number == int(number):  # the bounds first: 1e99999 has many digits
            return int(number)
    except ValueError:
        pass
    raise ValueError(f"is a whole number from {least} to {most}")


def _number(text: str, least: float, most: float) -> float:
    try:
        number = float(_decimal(text))
        if least <= number <= most:
            return number
    except ValueError:
        pass
    raise ValueError(f"is a number of seconds from {least:g} to {most:g}")


_FLAGS = {"true": True, "1": True, "": True, "false": False, "0": False}


def _flag(text: str) -> bool:
    found = _FLAGS.get(text.lower())  # Python's clients write True
    if found is None:
        raise ValueError("is true or false")
    return found


# The pattern alone bounds nothing; maxLength counts the suffix too, as nsqd does.
NAME_SCHEMA = {
    "type": "string",
    "pattern": "^[.a-zA-Z0-9_-]+(#ephemeral)?$",
    "minLength": 1,
    "maxLength": MAX_NAME_LENGTH,
}


def topic(help: str) -> Parameter:
    return Parameter("topic", help, _name, NAME_SCHEMA, True, invalid="INVALID_TOPIC")


def channel(help: str, *, required: bool) -> Parameter:
    """Without a channel, and for one whose name ends in #ephemeral, the engine needs temporary channels."""
    return Parameter(
        "channel", help, _name, NAME_SCHEMA, required, invalid="INVALID_CHANNEL",
        capability="temporary_channels", needs=lambda value: not value or value.endswith(EPHEMERAL),
    )  # fmt: skip


def whole(
    kind: str,
    help: str,
    least: int,
    most: int,
    default: int | None = None,
    *,
    invalid: str = "",
    capability: str = "",
) -> Parameter:
    schema: dict[str, Any] = {"type": "integer", "minimum": least, "maximum": most}
    if default is not None:
        schema["default"] = default
    return Parameter(
        kind, help, lambda text: _whole(text, least, most), schema,
        default=default, invalid=invalid, capability=capability,
    )  # fmt: skip


def seconds(kind: str, help: str, least: float, most: float, default: float | None = None) -> Parameter:
    schema: dict[str, Any] = {"type": "number", "minimum": least, "maximum": most}
    if default is not None:
        schema["default"] = default
    return Parameter(kind, help, lambda text: _number(text, least, most), schema, default=default)


def flag(kind: str, help: str, *, capability: str = "") -> Parameter:
    return Parameter(kind, help, _flag, {"type": "boolean", "default": False}, default=False, capability=capability)


def choice(kind: str, help: str, *words: str, default: str | None = None) -> Parameter:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"is one of {', '.join(words)}")
        return text

    schema: dict[str, Any] = {"type": "string", "enum": list(words)}
    if default is not None:
        schema["default"] = default
    return Parameter(kind, help, read, schema, default=default)


LONGEST_KEY = 4096  # characters of a key in a query
LONGEST_HEADER = 4096  # characters of a header in a query, its name included
_HEADER = re.compile(r"([^:\x00-\x1f\x7f]{1,255}):(.*)", re.DOTALL)
_BASE64 = r"^(?:[A-Za-z0-9+/_-]{4})*(?:[A-Za-z0-9+/_-]{2}==|[A-Za-z0-9+/_-]{3}=)?$"


def key(help: str) -> Parameter:
    """The key of messages, as text."""

    def read(value: str) -> bytes:
        if not 0 < len(value) <= LONGEST_KEY:
            raise ValueError(f"has 1 to {LONGEST_KEY} characters")
        return value.encode("utf-8")

    schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY}
    return Parameter("key", help, read, schema, capability="keys_and_headers", needs=lambda value: value is not None)


def key_base64(help: str) -> Parameter:
    """The key of messages, as base64 in either alphabet (RFC 4648, 4 and 5); an empty one is a key without bytes."""

    def read(value: str) -> bytes:
        if len(value) > LONGEST_KEY or not re.fullmatch(_BASE64[1:-1], value, re.ASCII):
            raise ValueError(f"is base64 of at most {LONGEST_KEY} characters; write its + as %2B or as -")
        return base64.b64decode(value, altchars=b"-_") if "-" in value or "_" in value else base64.b64decode(value)

    schema = {"type": "string", "pattern": _BASE64, "maxLength": LONGEST_KEY}
    return Parameter(
        "key_base64", help, read, schema, capability="keys_and_headers", needs=lambda value: value is not None
    )


def message_header(help: str) -> Parameter:
    """Headers of messages: NAME:VALUE, repeated. The value is everything after the first colon."""

    def read(value: str) -> tuple[str, bytes]:
        found = _HEADER.fullmatch(value) if len(value) <= LONGEST_HEADER else None
        if found is None:
            raise ValueError(
                f"is NAME:VALUE of at most {LONGEST_HEADER} characters; NAME has 1 to 255, without colons and control"
                " characters"
            )
        return found[1], found[2].encode("utf-8")

    schema = {"type": "string", "pattern": "^[^:\\x00-\\x1f\\x7f]{1,255}:", "maxLength": LONGEST_HEADER}
    return Parameter(
        "header", help, read, {"type": "array", "items": schema}, default=[], repeated=True,
        capability="keys_and_headers",
    )  # fmt: skip


def text(kind: str, help: str, longest: int, *, required: bool = False, repeated: bool = False) -> Parameter:
    def read(value: str) -> str:
        if not 0 < len(value) <= longest:
            raise ValueError(f"has 1 to {longest} characters")
        return value

    schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": longest}
    if repeated:
        schema = {"type": "array", "items": schema}
    return Parameter(kind, help, read, schema, required, [] if repeated else None, repeated)
