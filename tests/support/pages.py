"""The pages of the documentation, and the blocks of code in them."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from environment import ROOT
from lm_eval.tasks import TaskManager

SITE = sorted((ROOT / "docs").glob("*.md"))
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *SITE,
    *sorted(ROOT.glob("task_configs/*/README.md")),
    *sorted(ROOT.glob("plugins/*/**/README.md")),
    *sorted(ROOT.glob("examples/**/README.md")),
]
BLOCK = re.compile(
    r"(?:^<!-- ci: (?P<mark>\w+) -->\n\n?)?^(?P<fence>`{3,})(?P<language>\w*)\n(?P<code>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    mark: str | None
    """``run`` where ``<!-- ci: run -->`` stands before it."""
    code: str
    line: int
    """Of its first line in the page, from 1."""


def blocks(page: Path) -> list[Block]:
    """All fenced blocks in order."""
    text = page.read_text(encoding="utf-8")
    return [Block(m["language"], m["mark"], m["code"], text.count("\n", 0, m.start("code")) + 1) for m in BLOCK.finditer(text)]


def name(page: Path) -> str:
    """A page as tests call it, such as ``docs/lab.md``."""
    return str(page.relative_to(ROOT))


@functools.cache
def known_tasks() -> frozenset[str]:
    """The names of all tasks and groups, lm-eval's and ours."""
    return frozenset(TaskManager().all_tasks)
