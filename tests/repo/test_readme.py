"""What the README shows works as it stands."""

import re
from pathlib import Path

import pytest
from pages import known_tasks

ROOT = Path(__file__).parents[2]
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
    assert named <= known_tasks()
