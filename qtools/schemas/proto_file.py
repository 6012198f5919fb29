"""The text of a .proto file → a FileDescriptorProto. In: text. Out: what protobuf's library builds types of.

proto2 and proto3, as in protobuf.dev's specifications of the two. What says nothing about bodies is read over:
services, comments, and all options but `allow_alias`, `default`, `json_name` and `packed`. Extensions are left out, so
their fields are not decoded; groups are refused.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from typing import Any, NoReturn

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from qtools.schemas.contract import SchemaInvalid

MOST_TOKENS = 500_000
MOST_DEPTH = 30  # messages within messages
_TOKEN = re.compile(
    r"""
    (?P<space> \s+ | //[^\n]* | /\*.*?\*/ )
  | (?P<string> "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' )
  | (?P<name> \.?[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)* )
  | (?P<number> (?:0[xX][0-9A-Fa-f]+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?) )
  | (?P<symbol> [{}()\[\]<>=;,:+\-/.] )
    """,
    re.VERBOSE | re.DOTALL,
)
_LABELS = {
    "optional": FieldDescriptorProto.LABEL_OPTIONAL,
    "required": FieldDescriptorProto.LABEL_REQUIRED,
    "repeated": FieldDescriptorProto.LABEL_REPEATED,
}
_SCALARS = {
    name: getattr(FieldDescriptorProto, f"TYPE_{name.upper()}")
    for name in (
        "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "bytes", "uint32",
        "sfixed32", "sfixed64", "sint32", "sint64",
    )
}  # fmt: skip
_END = ("", "")


def parse_proto(text: str, name: str) -> FileDescriptorProto:
    """The file `text`, whose name is `name`. Raises SchemaInvalid, with the line."""
    return _Parser(text, name).file()


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self._made = FileDescriptorProto(name=name, syntax="proto2")
        self._tokens: list[tuple[str, str]] = []  # kind, text
        self._lines: list[int] = []
        self._at = 0
        self._scan(text)

    def _scan(self, text: str) -> None:
        at, line = 0, 1
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                raise SchemaInvalid(f"line {line}: {text[at]!r} is not expected in a .proto file")
            kind, piece = found.lastgroup or "", found[0]
            if kind != "space":
                self._tokens.append((kind, piece))
                self._lines.append(line)
                if len(self._tokens) > MOST_TOKENS:
                    raise SchemaInvalid(f"it has more than {MOST_TOKENS:,} words")
            line += piece.count("\n")
            at = found.end()

    # ── tokens ──

    @property
    def _next(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else _END

    def _fail(self, expected: str) -> NoReturn:
        line = self._lines[min(self._at, len(self._lines) - 1)] if self._lines else 1
        shown = repr(self._next[1][:40]) if self._next is not _END else "the end"
        raise SchemaInvalid(f"line {line}: {shown} stands where {expected} is expected")

    def _take(self, kind: str, expected: str) -> str:
        found, text = self._next
        if found != kind:
            self._fail(expected)
        self._at += 1
        return text

    def _is(self, text: str) -> bool:
        """Take the next token if it is `text`."""
        if self._next[1] == text and self._next[0] != "string":
            self._at += 1
            return True
        return False

    def _expect(self, text: str) -> None:
        if not self._is(text):
            self._fail(repr(text))

    def _name(self) -> str:
        return self._take("name", "a name")

    def _string(self) -> str:
        text = self._literal(self._take("string", "a text in quotes"))
        while self._next[0] == "string":
            text += self._literal(self._take("string", ""))
        return text

    def _literal(self, text: str) -> str:
        try:
            return str(ast.literal_eval(text))
        except (ValueError, SyntaxError):
            self._at -= 1
            self._fail("a text in quotes")

    def _integer(self) -> int:
        minus = self._is("-")
        text = self._take("number", "a whole number")
        try:
            number = int(text, 0) if not re.fullmatch(r"0[0-7]+", text) else int(text, 8)
        except ValueError:
            self._at -= 1
            self._fail("a whole number")
        return -number if minus else number

    def _skip(self, end: str = ";") -> None:
        """Read over the rest of a statement: up to `;`, or up to the `}` of its block. Braces in it are in pairs."""
        depth = 0
        while self._next is not _END:
            text = self._next[1] if self._next[0] == "symbol" else ""
            self._at += 1
            depth += (text == "{") - (text == "}")
            if not depth and text == end:
                return
        self._fail(repr(end))

    def _option_value(self) -> str:
        """The value of an option, as its text; of a block in braces, nothing."""
        if self._next[1] == "{":
            self._skip("}")
            return ""
        if self._next[0] == "string":
            return self._string()
        sign = "-" if self._is("-") else ""
        self._is("+")
        kind, text = self._next
        if kind not in ("name", "number"):
            self._fail("the value of an option")
        self._at += 1
        return sign + text

    # ── the file ──

    def file(self) -> FileDescriptorProto:
        made = self._made
        while self._next is not _END:
            if self._is(";"):
                continue
            word = self._name()
            if word == "syntax":
                self._expect("=")
                made.syntax = self._string()
                if made.syntax not in ("proto2", "proto3"):
                    raise SchemaInvalid(f"its syntax is {made.syntax[:40]!r}, neither proto2 nor proto3")
                self._expect(";")
            elif word == "package":
                made.package = self._name()
                self._expect(";")
            elif word == "import":
                kind = self._name() if self._next[0] == "name" else ""
                if kind == "public":
                    made.public_dependency.append(len(made.dependency))
                made.dependency.append(self._string())
                self._expect(";")
            elif word == "message":
                self._message(made.message_type.add(), 1)
            elif word == "enum":
                self._enum(made.enum_type.add())
            elif word in ("option", "service", "extend"):
                self._skip(";" if word == "option" else "}")
            else:
                self._at -= 1
                self._fail("syntax, package, import, message or enum")
        return made

    def _message(self, made: DescriptorProto, depth: int) -> None:
        if depth > MOST_DEPTH:
            raise SchemaInvalid(f"its messages are nested more than {MOST_DEPTH} levels deep")
        made.name = self._name()
        self._expect("{")
        while not self._is("}"):
            if not self._is(";"):
                self._member(made, depth)
        # The oneofs that stand for `optional` in proto3 come last.
        for field in made.field:
            if field.proto3_optional:
                field.oneof_index = len(made.oneof_decl)
                made.oneof_decl.add(name=f"_{field.name}")

    def _member(self, made: DescriptorProto, depth: int) -> None:
        """A member of a message. Each word may be the name of a type, too."""
        word, (kind, after) = self._next[1], self._peek(1)
        opens = kind == "name" and self._peek(2)[1] == "{"
        if word == "message" and opens:
            self._at += 1
            self._message(made.nested_type.add(), depth + 1)
        elif word == "enum" and opens:
            self._at += 1
            self._enum(made.enum_type.add())
        elif word == "oneof" and opens:
            self._at += 1
            self._oneof(made)
        elif word in ("option", "reserved", "extensions"):
            self._skip()
        elif word == "extend" and opens:
            self._skip("}")
        elif word == "map" and after == "<":
            self._map(made)
        else:
            self._field(made, None)

    def _peek(self, ahead: int) -> tuple[str, str]:
        return self._tokens[self._at + ahead] if self._at + ahead < len(self._tokens) else _END

    def _oneof(self, made: DescriptorProto) -> None:
        index = len(made.oneof_decl)
        made.oneof_decl.add(name=self._name())
        self._expect("{")
        while not self._is("}"):
            if self._next[1] == "option":
                self._skip()
            elif not self._is(";"):
                self._field(made, index)

    def _field(self, made: DescriptorProto, oneof: int | None) -> None:
        field = made.field.add(label=FieldDescriptorProto.LABEL_OPTIONAL)
        word = self._name()
        if word in _LABELS and self._next[0] == "name":
            field.label = _LABELS[word]
            if word == "optional" and self._made.syntax == "proto3":
                field.proto3_optional = True
            word = self._name()
        if word == "group":
            raise SchemaInvalid("it has a group, which is not supported")
        if word in _SCALARS:
            field.type = _SCALARS[word]
        else:
            field.type_name = word  # whether it is a message or an enum is found by the library
        if oneof is not None:
            field.oneof_index = oneof
        self._rest_of_field(field)

    def _map(self, made: DescriptorProto) -> None:
        """A map is a repeated message with the fields key and value."""
        self._expect("map")
        self._expect("<")
        key = self._name()
        self._expect(",")
        value = self._name()
        self._expect(">")
        field = made.field.add(label=FieldDescriptorProto.LABEL_REPEATED)
        self._rest_of_field(field)
        entry_name = "".join(part[:1].upper() + part[1:] for part in field.name.split("_")) + "Entry"
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, entry_name
        entry = made.nested_type.add(name=entry_name)
        entry.options.map_entry = True
        for number, (name, kind) in enumerate((("key", key), ("value", value)), 1):
            part = entry.field.add(name=name, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
            if kind in _SCALARS:
                part.type = _SCALARS[kind]
            else:
                part.type_name = kind

    def _rest_of_field(self, field: FieldDescriptorProto) -> None:
        field.name = self._name()
        self._expect("=")
        number = self._integer()
        if not 0 < number < 1 << 29:
            raise SchemaInvalid(f"the field {field.name[:100]!r} has the number {number}")
        field.number = number
        if self._is("["):
            self._options(lambda name, value: self._field_option(field, name, value), "]")
        self._expect(";")

    def _options(self, take: Callable[[str, str], Any], end: str) -> None:
        """Options in brackets, separated by commas."""
        while True:
            name = self._option_name()
            self._expect("=")
            take(name, self._option_value())
            if self._is(end):
                return
            self._expect(",")
            if self._is(end):
                return

    def _option_name(self) -> str:
        if not self._is("("):
            return self._name()
        name = self._name()
        self._expect(")")
        while self._next[0] == "name" and self._next[1].startswith("."):
            self._at += 1
        return f"({name})"

    @staticmethod
    def _field_option(field: FieldDescriptorProto, name: str, value: str) -> None:
        if name == "default":
            is_bytes = field.type == FieldDescriptorProto.TYPE_BYTES  # the descriptor has escapes in them
            field.default_value = value.encode("unicode_escape").decode("ascii") if is_bytes else value
        elif name == "json_name":
            field.json_name = value
        elif name == "packed":
            field.options.packed = value == "true"

    def _enum(self, made: EnumDescriptorProto) -> None:
        made.name = self._name()
        self._expect("{")
        while not self._is("}"):
            if self._is(";"):
                continue
            word, after = self._next[1], self._peek(1)
            if word == "option" and after[1] != "=":
                if after[1] == "allow_alias":
                    made.options.allow_alias = self._peek(3)[1] == "true"
                self._skip()
            elif word == "reserved" and after[1] != "=":
                self._skip()
            else:
                value = made.value.add(name=self._name())
                self._expect("=")
                number = self._integer()
                if not -(1 << 31) <= number < 1 << 31:
                    raise SchemaInvalid(f"{value.name[:100]!r} has the number {number}, which is too large for an enum")
                value.number = number
                if self._is("["):
                    self._options(lambda name, value: None, "]")
                self._expect(";")
