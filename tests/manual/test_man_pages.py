"""The man pages: in the wheel, where man finds them, and without a warning from man or mandoc."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from manual.markdown import PAGES, ROOT, flags_in, tabled_flags, text
from qtools import __version__
from qtools.manual import pages
from qtools.manual.document import parse
from qtools.manual.roff import man_page

MAN = shutil.which("man") is not None and shutil.which("groff") is not None


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix into which the wheel of this checkout was unpacked as an installer does."""
    directory = tmp_path_factory.mktemp("wheel")
    made = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    (wheel,) = directory.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(directory / "unpacked")
    data = directory / "unpacked" / f"qtools_cli-{__version__}.data" / "data"
    (data / "bin").mkdir()
    return data


def test_the_wheel_has_a_man_page_for_each_program(prefix: Path) -> None:
    assert {path.name for path in (prefix / "share/man/man1").iterdir()} == {f"{name}.1" for name in pages.PROGRAMS}


def test_the_wheel_has_the_pages_of_help(prefix: Path) -> None:
    package = prefix.parents[1] / "qtools"
    assert {path.stem for path in (package / "manual/pages").iterdir()} == PAGES.keys() - {"README"}
    program = "import sys; sys.argv = ['qtools', 'help', 'tail']; from qtools.entry import qtools; qtools()"
    asked = subprocess.run(
        [sys.executable, "-c", program],
        cwd=package.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert asked.stdout.startswith("q-tail: print the messages")


@pytest.mark.skipif(not MAN, reason="no man with groff on PATH")
def test_man_finds_a_page_beside_the_directory_of_the_programs(prefix: Path) -> None:
    path = f"{prefix / 'bin'}:{os.environ['PATH']}"
    environment = {name: value for name, value in os.environ.items() if name != "MANPATH"}
    shown = subprocess.run(["man", "q-tail"], env=environment | {"PATH": path, "MANWIDTH": "80", "LC_ALL": "C.UTF-8"},
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    plain = re.sub(r".\x08|\x1b\[[\d;]*m", "", shown)
    assert re.search(r"NAME\n\s+q-tail - print the messages of topics to stdout\n", plain), plain[:500]


@pytest.fixture(params=pages.PROGRAMS)
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    name = request.param
    path = tmp_path / f"{name}.1"
    path.write_text(man_page(name, parse(text(name)), __version__, "2026-11-28"), encoding="utf-8")
    return path


@pytest.mark.skipif(not MAN, reason="no man with groff on PATH")
def test_man_shows_it_without_a_warning(page: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", page],
        env=os.environ | {"MANWIDTH": "80", "LC_ALL": "C.UTF-8"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    # Code is not folded, and may be wider than the page.
    warnings = [line for line in done.stderr.splitlines() if "can't break line" not in line]
    assert (done.returncode, warnings) == (0, [])
    shown = re.sub(r".\x08|\x1b\[[\d;]*m", "", done.stdout)
    assert flags_in(shown) >= tabled_flags(text(page.stem))


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="no mandoc on PATH")
def test_mandoc_finds_no_fault(page: Path) -> None:
    done = subprocess.run(["mandoc", "-Tlint", "-W", "warning", page], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    ("markdown", "roff"),
    [
        ("a \\ b - c 'd' `e`", ".PP\na \\e b \\- c \\(aqd\\(aq \\fBe\\fR"),
        (".a", ".PP\n\\&.a"),
        ("*x* **y** [z](q.md)", ".PP\n\\fIx\\fR \\fBy\\fR z"),
        ("```sh\n.a\n  b\\n\n```", ".PP\n.RS 4\n.EX\n\\&.a\n  b\\en\n.EE\n.RE"),
        ("- a\n- b", ".IP \\(bu 2\na\n.IP \\(bu 2\nb"),
        ("1. a\n2. b", ".IP 1. 3\na\n.IP 2. 3\nb"),
        ("| o | meaning | default |\n|---|---|---|\n| `-n` | end. | 1 |\n| `-m` | go | |",
         ".TP\n\\fB\\-n\\fR\nend. Default: 1\n.TP\n\\fB\\-m\\fR\ngo"),
        ("| a | meaning |\n|---|---|\n| x | é → y |", ".TP\nx\n\\[u00E9] \\(-> y"),
    ],
)  # fmt: skip
def test_markdown_to_roff(markdown: str, roff: str) -> None:
    made = man_page("q-x", parse(f"# q-x: test\n\n## Text\n\nfirst\n\n{markdown}\n"), "1", "2026-11-28")
    assert made.partition("first\n")[2].partition("\n.SH SEE ALSO")[0] == roff


def test_links_are_what_to_see_also() -> None:
    made = man_page(
        "q-x", parse("# q-x: test\n\n[a](q-tail.md#b) [c](concepts.md) [d](#e) [f](http://g)\n"), "1", "2026-11-28"
    )
    assert made.endswith(".SH SEE ALSO\nq\\-tail(1), qtools help concepts\n")


@pytest.mark.parametrize("markdown", ["<b>x</b>", "> quoted", "# q-x\n", "a\n\n---\n\nb"])
def test_what_the_manual_cannot_show_is_refused(markdown: str) -> None:
    with pytest.raises(ValueError, match=r"cannot show|has to begin"):
        man_page("q-x", parse(markdown if markdown.startswith("#") else f"# q-x: y\n\n{markdown}\n"), "1", "2026-11-28")
