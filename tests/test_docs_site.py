"""The site that `make docs` builds: without warnings, links that lead somewhere, nothing from outside."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# What a page fetches by itself, by element; a link that a reader may follow is no such thing.
FETCHED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}


class Page(HTMLParser):
    """The ids, links and fetched files of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found["id"]} if "id" in found else set()
        self.links += [found["href"]] if tag == "a" and "href" in found else []
        is_alternative = tag == "link" and found.get("rel") not in ("stylesheet", "icon", "preload")
        if tag in FETCHED and FETCHED[tag] in found and not is_alternative:
            self.fetched.append(found[FETCHED[tag]])


def build(source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build as `make docs` does; the target of the Makefile names the same words."""
    words = ["--quiet", "--fail-on-warning", "--keep-going", "-d", str(folder / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *words, "-c", str(DOCS), str(source), str(folder / "site")]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    done = build(DOCS, folder)
    assert done.returncode == 0, done.stderr
    return folder / "site"


@cache
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def broken(site: Path) -> Iterator[str]:
    """Yield each link to a file or heading of the site that is not there."""
    for path in pages(site):
        for link in (*page(path).links, *page(path).fetched):
            address, fragment = urldefrag(link)
            if urlsplit(address).scheme or address.startswith("//"):
                continue
            target = (path.parent / unquote(address.partition("?")[0])).resolve() if address else path
            if not target.is_file():
                yield f"{path.relative_to(site)}: {link}: no such file"
            elif fragment and target.suffix == ".html" and unquote(fragment) not in page(target).ids:
                yield f"{path.relative_to(site)}: {link}: no such heading"


@pytest.mark.timeout(300)
def test_the_site_builds_without_a_warning_and_every_link_in_it_leads_somewhere(site: Path) -> None:
    assert len(pages(site)) > 40
    assert list(broken(site)) == []


def test_the_site_fetches_nothing_from_outside(site: Path) -> None:
    fetched = {link for path in pages(site) for link in page(path).fetched}
    styles = [path.read_text(encoding="utf-8") for path in site.rglob("*.css")]

    assert any("furo" in link for link in fetched)
    assert [link for link in fetched if urlsplit(link).netloc] == []
    assert [
        found for style in styles for found in re.findall(r"(?:url\(|@import )[\"']?(?:https?:)?//", style)
    ] == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[there](nowhere.md)", "nowhere.md"),
        ("[there](other.md#no-such-heading)", "no-such-heading"),
        ("![there](nowhere.png)", "nowhere.png"),
    ],
)
def test_a_broken_link_or_picture_breaks_the_build(line: str, said: str, tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    (source / "other.md").write_text("---\norphan: true\n---\n# Other\n")
    (source / "index.md").write_text(
        f"# Page\n\n{line}\n\n```{{toctree}}\n:glob:\n\ngenerated/*\nreference\n```\n"
    )
    (source / "reference.md").write_text("# Reference\n\n## Commands\n\n## Rules\n")
    (source / "gameday.md").write_text("---\norphan: true\n---\n# Game days\n")

    done = build(source, tmp_path)

    assert done.returncode == 1, done.stderr
    assert [text for text in done.stderr.splitlines() if "WARNING" in text and said in text], done.stderr
    assert done.stderr.count("WARNING") == 1, done.stderr


def test_the_makefile_builds_with_the_same_words() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert "-m sphinx --quiet --fail-on-warning --keep-going -d build/doctrees docs build/site" in text


def test_the_pictures_are_small_and_fetch_nothing() -> None:
    pictures = sorted((DOCS / "pictures").iterdir())
    drawn = [path.read_text(encoding="utf-8") for path in pictures if path.suffix == ".svg"]

    assert len(pictures) >= 12
    assert {path.suffix for path in pictures} == {".webp", ".svg"}
    assert sum(path.stat().st_size for path in pictures) < 3_000_000
    assert [svg for svg in drawn if re.search(r"(?:url\(|@import |href=)[\"']?(?:https?:)?//", svg)] == []
