"""Links and lists of all pages hold where the repository is browsed, and in the site that is built from docs/."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest
import yaml
from environment import ROOT
from pages import BLOCK, PAGES, SITE, name

LINK = re.compile(r"\]\(([^)\s]+)\)")
INLINE = re.compile(r"`[^`\n]*`")


def prose(page: Path) -> str:
    return BLOCK.sub("", page.read_text(encoding="utf-8"))


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, by the rule of repository browsers."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+?)\s*$", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")
        found[slug] = found.get(slug, -1) + 1
    return {f"{slug}-{number}" if number else slug for slug, last in found.items() for number in range(last + 1)}


def broken(page: Path) -> list[str]:
    """The relative links that lead nowhere, or outside of the repository."""
    found = []
    for link in LINK.findall(INLINE.sub("", prose(page))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = Path(os.path.normpath(page.parent / path)) if path else page
        ours = target.is_relative_to(ROOT) or target.is_relative_to(page.parent)
        if not (ours and target.exists()) or (anchor and target.suffix == ".md" and anchor not in slugs(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_of_a_page_leads_to_a_file_and_to_a_heading_in_it(page: Path) -> None:
    assert broken(page) == []


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A title: `with` code\n\n## A title: with code\n", encoding="utf-8")
    page = tmp_path / "page.md"
    code = "`[h](i)`\n```text\n[j](k)\n```\n"
    links = "[a](other.md) [b](other.md#a-title-with-code-1) [c](https://x.y) [d](other.md#b) [e](none.md) [f](#g)"
    page.write_text(f"{links} {code}", encoding="utf-8")
    assert broken(page) == ["other.md#b", "none.md", "#g"]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_placeholder_is_left(page: Path) -> None:
    assert not re.search(r"@[A-Z_0-9]+@|\bTODO\b", page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", SITE, ids=name)
def test_a_list_and_a_table_have_an_empty_line_before_them(page: Path) -> None:
    """Without it the site would show one long paragraph."""
    lines = prose(page).splitlines()
    begins = re.compile(r"[-*] |\d\. |\|")
    goes_on = re.compile(r"\s*([-*] |\d+\. |\|)|\s+\S|$")
    assert [after for before, after in itertools.pairwise(lines) if begins.match(after) and not goes_on.match(before)] == []


def test_every_page_of_the_docs_is_in_the_navigation_once() -> None:
    text = (ROOT / "scripts" / "mkdocs.yml").read_text(encoding="utf-8")
    found: list[str] = []
    waiting = list(yaml.safe_load(text)["nav"])
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, str):
            found.append(entry)
        else:
            waiting += [part for value in entry.values() for part in (value if isinstance(value, list) else [value])]
    assert sorted(found) == sorted([*(page.name for page in SITE), "repository/CONTRIBUTING.md"])
