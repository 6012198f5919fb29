"""The site of docs/: mkdocs accepts every page and every link, and so do the links of README.md."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from manual.markdown import PAGES, ROOT, text


def build(configuration: Path, site: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", configuration, "-d", site],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_mkdocs_builds_it_without_a_warning(tmp_path: Path) -> None:
    built = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert (built.returncode, "WARNING" in built.stderr) == (0, False), built.stderr
    made = {path.stem for path in (tmp_path / "site").rglob("*.html")}
    assert made >= PAGES.keys() - {"README"}
    # What mkdocs does not read as Markdown it shows as it is.
    for page in sorted(PAGES.keys() - {"README"}):
        html = (tmp_path / "site" / PAGES[page].relative_to(ROOT / "docs").with_suffix(".html")).read_text(
            encoding="utf-8"
        )
        assert "```" not in html, page
        assert re.findall(r"<script[^>]* src=\"http|<link[^>]* href=\"http", html) == [], page


@pytest.mark.parametrize("link", ["nowhere.md", "q-tail.md#nowhere", "#nowhere"])
def test_a_link_that_leads_nowhere_fails(tmp_path: Path, link: str) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / "docs/formats.md").open("a", encoding="utf-8") as page:
        page.write(f"\n[a link]({link})\n")
    built = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert built.returncode != 0
    assert link in built.stderr


def anchors(markdown: str) -> set[str]:
    """The anchors of a page, as GitHub and mkdocs make them of headings like ours."""
    headings = re.findall(r"^#+ (.*)$", markdown, re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_every_link_of_readme_leads_somewhere() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", text("README"))
    assert len(targets) > 30
    for target in targets:
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        assert (ROOT / path).is_file(), target
        assert not anchor or anchor in anchors((ROOT / path).read_text(encoding="utf-8")), target


def test_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(docs/(?:[a-z-]+/)?([a-z-]+)\.md", text("README")))
    assert linked == PAGES.keys() - {"README", "index"}


def test_no_table_has_a_pipe_in_a_cell() -> None:
    # GitHub wants it escaped, Python-Markdown shows the backslash.
    assert [line for page in PAGES for line in text(page).splitlines() if line.startswith("|") and "\\|" in line] == []
