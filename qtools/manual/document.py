"""Markdown → blocks. In: the text of a page. Out: headings, paragraphs, code, lists and tables, in their order.

The pages use a part of Markdown: no HTML, no quotations. An image is its alternative text. Anything
else raises ValueError, so that a page that the manual cannot show fails in the tests and in the build.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode


@dataclass(slots=True)
class TextSpan:
    """Text of one kind: "plain", "code", "strong" or "emphasis". `link` is the address that it leads to, or ""."""

    text: str
    kind: str = "plain"
    link: str = ""


Spans = list[TextSpan]


@dataclass(slots=True)
class Heading:
    """A heading; `level` is 1 for the title of the page."""

    level: int
    spans: Spans


@dataclass(slots=True)
class Paragraph:
    spans: Spans


@dataclass(slots=True)
class Code:
    """Lines that are shown as they are. `language` is what follows the fence."""

    text: str
    language: str


@dataclass(slots=True)
class Bullets:
    """A list: the blocks of each item, and the mark before it: "•", or "1." and so on."""

    items: list[tuple[str, list[BlockElement]]]


@dataclass(slots=True)
class Table:
    """A table: the cells of its header, and the cells of each row."""

    header: list[Spans]
    rows: list[list[Spans]] = field(default_factory=list)


BlockElement = Heading | Paragraph | Code | Bullets | Table


def parse(markdown: str) -> list[BlockElement]:
    """The blocks of a page. Raises ValueError, with the line, for Markdown that the manual cannot show."""
    tree = SyntaxTreeNode(MarkdownIt("commonmark").enable("table").parse(markdown))
    return [_block(node) for node in tree.children]


def plain(spans: Spans) -> str:
    """The text of spans without any marks."""
    return "".join(span.text for span in spans)


def links(blocks: list[BlockElement]) -> list[str]:
    """The addresses of all links, in the order of their first occurrence."""
    found = dict.fromkeys(span.link for spans in _all_spans(blocks) for span in spans if span.link)
    return list(found)


def _all_spans(blocks: list[BlockElement]) -> list[Spans]:
    found: list[Spans] = []
    for block in blocks:
        match block:
            case Heading() | Paragraph():
                found.append(block.spans)
            case Bullets():
                found += [spans for _, item in block.items for spans in _all_spans(item)]
            case Table():
                found += [cell for row in (block.header, *block.rows) for cell in row]
    return found


def _block(node: SyntaxTreeNode) -> BlockElement:
    match node.type:
        case "heading":
            return Heading(int(node.tag[1:]), _spans(node))
        case "paragraph":
            return Paragraph(_spans(node))
        case "fence" | "code_block":
            return Code(node.content.rstrip("\n"), node.info.strip() if node.type == "fence" else "")
        case "bullet_list" | "ordered_list":
            marks = [f"{i}." if node.type == "ordered_list" else "•" for i in range(1, len(node.children) + 1)]
            items = [[_block(child) for child in item.children] for item in node.children]
            return Bullets(list(zip(marks, items, strict=True)))
        case "table":
            rows = [[_spans(cell) for cell in row.children] for part in node.children for row in part.children]
            return Table(rows[0], rows[1:])
    raise ValueError(f"line {node.map[0] + 1 if node.map else '?'}: the manual cannot show a {node.type}")


def _spans(node: SyntaxTreeNode) -> Spans:
    return [span for child in node.children for span in _inline(child, "plain", "")]


def _inline(node: SyntaxTreeNode, kind: str, link: str) -> Spans:
    match node.type:
        case "inline":
            return [span for child in node.children for span in _inline(child, kind, link)]
        case "text":
            return [TextSpan(node.content, kind, link)] if node.content else []
        case "softbreak" | "hardbreak":
            return [TextSpan(" ", kind, link)]
        case "code_inline":
            return [TextSpan(node.content, "code", link)]
        case "strong":
            return [span for child in node.children for span in _inline(child, "strong", link)]
        case "em":
            return [span for child in node.children for span in _inline(child, "emphasis", link)]
        case "link":
            target = str(node.attrGet("href") or "")
            return [span for child in node.children for span in _inline(child, kind, target)]
        case "image":
            return [TextSpan(node.content, "emphasis", link)]
    raise ValueError(f"the manual cannot show a {node.type}")
