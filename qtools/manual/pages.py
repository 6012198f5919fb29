"""Where the pages are, and what they are about. In: a name. Out: the Markdown of its page.

An installed package has its pages in qtools/manual/pages, where the build puts them; a checkout has them in docs/.
"""

from __future__ import annotations

from pathlib import Path

from qtools.manual.document import Spans, Table, TextSpan, plain

_HERE = Path(__file__).parent

# The programs: each has a page of its name, which is its man page too.
PROGRAMS = (
    "q-pipe", "q-tail", "q-bridge", "q-to-file", "q-exec", "q-admin", "q-pubsub-http", "q-broker",
    "qtools", "qtools-soak",
)  # fmt: skip


def directory() -> Path:
    """The directory of the pages."""
    installed = _HERE / "pages"
    return installed if installed.is_dir() else _HERE.parents[1] / "docs"


def names() -> list[str]:
    """The names of all pages: the programs first, then the others by the alphabet."""
    others = sorted(path.stem for path in directory().rglob("*.md"))
    return [*PROGRAMS, *(name for name in others if name not in PROGRAMS and name != "index")]


def read(name: str) -> str:
    """The Markdown of the page `name`."""
    (path,) = directory().rglob(f"{name}.md")
    return path.read_text(encoding="utf-8")


def subject(markdown: str) -> str:
    """What a page is about: its title, `# NAME: what it is about`, behind the name."""
    return markdown.partition("\n")[0].partition(": ")[2]


def see_also(name: str, targets: list[str]) -> list[str]:
    """What the page `name` refers to, by its links: q-tail(1), then the commands that show the rest."""
    pages = [target.partition("#")[0] for target in targets if ".md" in target and "://" not in target]
    found = [page for page in dict.fromkeys(Path(page).stem for page in pages) if page != name]
    programs = [f"{page}(1)" for page in found if page in PROGRAMS]
    return [*programs, *(f"qtools help {page}" for page in found if page not in PROGRAMS)]


def cell_texts(table: Table, row: list[Spans]) -> Spans:
    """What a row says below its first cell: each further cell after its header, which "meaning" leaves out."""
    found: Spans = []
    for header, cell in zip(table.header[1:], row[1:], strict=False):
        label = plain(header)
        if not cell:
            continue
        if found:
            found.append(TextSpan(" " if plain(found).endswith((".", ":", "?")) else ". "))
        if label and label != "meaning" and len(table.header) > 2:
            found.append(TextSpan(f"{label[0].upper()}{label[1:]}: "))
        found += cell
    return found
