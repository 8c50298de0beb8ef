"""Hooks of the documentation site.

A page in ``docs/`` may link to any file of the repository, as where the repository is browsed. Here such a file becomes a page below
``repository/``: Markdown as it is, other text as a listing, a folder as its README or the listings of its files. So the site has no link
to a place where the repository would have to be, and is complete without a network.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.slugs import slugify

ROOT = Path(__file__).resolve().parents[1]
INSIDE = "repository/"
CODE_OR_LINK = re.compile(r"^ *(?P<fence>`{3,}).*?^ *(?P=fence) *$|`[^`\n]+`|\]\((?P<target>[^)\s]+)\)", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".sh": "bash"}
FOREIGN = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"?(?:https?:)?//[^>]*>")


def on_config(config: Any) -> Any:
    """Makes anchors as repository browsers do, so that a link to a heading holds in both."""
    config.mdx_configs["toc"]["slugify"] = slugify(case="lower")
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the files of the repository that pages link to, and those that these link to."""
    waiting = [(f"docs/{file.src_uri}", Path(str(file.abs_src_path)).read_text(encoding="utf-8")) for file in files.documentation_pages()]
    named = [str(uri) for item in config.nav or [] for uri in item.values()]
    waiting += [("docs/mkdocs.yml", f"](../{uri.removeprefix(INSIDE)})") for uri in named if uri.startswith(INSIDE)]
    while waiting:
        source, text = waiting.pop()
        for path in _targets(source, text):
            uri = _uri(path)
            if files.get_file_from_path(uri) is None and (ROOT / path).exists():
                if (ROOT / path).suffix in (".png", ".svg"):
                    files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
                    continue
                content = _page(ROOT / path)
                files.append(File.generated(config, uri, content=content))
                waiting.append((_source(uri), content))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Points links that leave ``docs/`` to the pages made of their files."""
    source = _source(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def point(target: str) -> str:
        link, hash_, anchor = target.partition("#")
        uri = _uri(posixpath.normpath(posixpath.join(posixpath.dirname(source), link)))
        return posixpath.relpath(uri, here or ".") + (hash_ + anchor if link.endswith(".md") else "")

    return _links(markdown, point)


def on_post_page(output: str, page: Page, config: Any) -> str:
    """Refuses what a browser would fetch from elsewhere.

    Raises:
        PluginError: a page that has such a script, style or picture.
    """
    if found := FOREIGN.search(output):
        raise PluginError(f"{page.file.src_uri}: the site must work without a network, and has {found[0]}")
    return output


def _links(markdown: str, change: Callable[[str], str]) -> str:
    """The text with the targets of its relative links replaced, code apart."""

    def replace(match: re.Match[str]) -> str:
        target = match["target"]
        return match[0] if target is None or re.match(r"[a-z]+:|#", target) else f"]({change(target)})"

    return CODE_OR_LINK.sub(replace, markdown)


def _targets(source: str, markdown: str) -> list[str]:
    """The paths in the repository, from its root, that a page links to."""
    found: list[str] = []

    def note(target: str) -> str:
        found.append(posixpath.normpath(posixpath.join(posixpath.dirname(source), target.partition("#")[0])))
        return target

    _links(markdown, note)
    return found


def _uri(path: str) -> str:
    """Where a path of the repository is in the site; of a folder, its README or its own page."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if (ROOT / path).is_dir():
        path += "/README.md" if (ROOT / path / "README.md").is_file() else "/index.md"
    elif Path(path).suffix not in (".md", ".png", ".svg"):
        path += ".md"
    return INSIDE + path


def _source(uri: str) -> str:
    """The path in the repository of what stands at ``uri`` in the site."""
    return uri.removeprefix(INSIDE) if uri.startswith(INSIDE) else f"docs/{uri}"


def _page(path: Path) -> str:
    if path.is_dir():
        if (path / "README.md").is_file():
            return (path / "README.md").read_text(encoding="utf-8")
        files = sorted(file for file in path.rglob("*") if file.suffix in LANGUAGES)
        return f"# {path.name}\n\n" + "\n\n".join(f"## {file.relative_to(path)}\n\n{_listing(file)}" for file in files)
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    return f"# {path.name}\n\n{_listing(path)}"


def _listing(file: Path) -> str:
    return f"``````{LANGUAGES.get(file.suffix, 'text')}\n{file.read_text(encoding='utf-8')}\n``````"
