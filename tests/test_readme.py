"""What the README shows works as it stands."""

import re
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n", 1)[0])
def test_each_python_block_runs_by_itself(block):
    exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


def test_there_are_python_blocks():
    assert len(BLOCKS) >= 2


def test_every_task_in_the_table_exists_and_every_folder_of_ours_is_in_it():
    ours = {path.stem for path in (ROOT / "task_configs").rglob("[!_]*.yaml")}
    table = README[README.index("| group | tasks |") :].split("\n\n", 1)[0]
    named = {name for name in re.findall(r"`(\w+)`", table) if not name.startswith("facts_")}
    assert named <= ours
    for folder in {path.parent for path in (ROOT / "task_configs").rglob("[!_]*.yaml")}:
        assert named & {path.stem for path in folder.glob("*.yaml")}
    assert named <= set(TaskManager().all_tasks)


PAGES = [
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "task_configs/*/README.md", "plugins/harness_ext_lab/*/README.md")
    for path in sorted(ROOT.glob(pattern))
]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_file_that_a_page_links_to_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if not link.startswith("http")]
    assert [link for link in links if not (ROOT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_no_placeholder_is_left(page):
    assert not re.search(r"@[A-Z_0-9]+@|\bTODO\b", (ROOT / page).read_text(encoding="utf-8"))
