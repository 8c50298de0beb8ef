"""What all in-context tasks with a dial have in common: balance, seeds, digests and refused options."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import yaml
from refusals import raises_line

from harness_ext.errors import BadOptionError, UnknownNameError
from harness_ext.tasks import dials

CONFIGS = Path(__file__).parents[2] / "task_configs" / "dials"
FILES = {path.stem: yaml.safe_load(path.read_text().replace("!function ", "")) for path in sorted(CONFIGS.glob("[!_]*.yaml"))}
TASKS = {name: config for name, config in FILES.items() if "group" not in config}


def rows(task, items, **options):
    """The first items of a task, by the options of its YAML."""
    config = TASKS[task]
    kind = config["dataset_kwargs"]["dial"]
    read = dials.check_task(dial=kind, **(config["metadata"] | options))
    return [dials.item(kind, read, index) for index in range(items)]


@pytest.mark.parametrize("task", TASKS)
def test_answers_and_their_places_are_balanced(task):
    values = len(rows(task, 1)[0]["choices"])
    made = rows(task, 4 * values)
    assert TASKS[task]["metadata"]["chance"] == pytest.approx(1 / values, abs=1e-3)
    assert all(len(set(row["choices"])) == values for row in made)
    targets = Counter(row["target"] for row in made)
    assert set(targets) == set(range(values))
    assert max(targets.values()) - min(targets.values()) <= values  # the place of the answer may cycle at another pace


@pytest.mark.parametrize("task", TASKS)
def test_an_item_depends_on_the_options_and_its_number_alone(task):
    first, again = rows(task, 4), rows(task, 4)
    kind = TASKS[task]["dataset_kwargs"]["dial"]
    other = rows(task, 4, **{f"{kind}_seed": 2**32 - 1})
    assert first == again
    assert len({row["prompt"] for row in [*first, *other]}) == 8


DIGESTS = {
    "counting_160": "ed91ae7296ab9109",
    "counting_20": "df7acd314cf4e612",
    "counting_40": "505dc78014b09e52",
    "counting_80": "d2e1b5d5ab5e50eb",
    "kv_hops_1": "54e5aef3bc5af161",
    "kv_hops_2": "47d0cf5b51508ba2",
    "kv_hops_3": "0fcfd0934b4e6945",
    "kv_hops_4": "73630c6bfee9dfaa",
    "mqar_128": "ebfb6f94502ef1f2",
    "mqar_16": "ab598acc79391bf6",
    "mqar_32": "b8302e83f87eef73",
    "mqar_64": "63a52ec6c272e5f2",
    "mqar_digits_16": "e3bb330496d2bc97",
    "mqar_digits_32": "7e6d20258362c1be",
    "needle_100": "15129ec00c5d5cef",
    "needle_1600": "bc08ff9deaaf0697",
    "needle_400": "69620e5a38ec0b98",
    "needle_6000": "04e2d00c17e8d7de",
    "needle_word_100": "6dfa02c54389940b",
    "needle_word_400": "ba188b6e44c5b126",
    "variables_1": "441255f582271a92",
    "variables_2": "51c3746eee4c6e59",
    "variables_3": "d4a677e06e0ac0ad",
    "variables_4": "a143b394815a5f6e",
    "word_hops_1": "0db2c3813242b903",
    "word_hops_2": "5dd3ee8e62772fd1",
    "word_hops_3": "bf5317c8bc0ca5a5",
    "word_hops_4": "8a794cfb2f462ef7",
}


@pytest.mark.parametrize("task", TASKS)
def test_items_are_the_same_on_every_machine_and_with_every_library_version(task):
    # A change here changes the published tasks: give them a new version.
    text = "\n".join(f"{row['prompt']} {row['choices'][row['target']]}\n" for row in rows(task, 16))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == DIGESTS[task]


def test_a_group_has_the_tasks_of_a_family_in_the_order_of_the_dial():
    families = defaultdict(list)
    for name, config in TASKS.items():
        families[config["metadata"]["family"]].append(name)
    groups = {name: config["task"] for name, config in FILES.items() if "group" in config}
    assert {name: sorted(members) for name, members in groups.items()} == {name: sorted(members) for name, members in families.items()}
    for members in groups.values():
        assert members == sorted(members, key=lambda name: int(name.rsplit("_", 1)[1]))


@pytest.mark.parametrize("kind", dials.KINDS)
def test_every_kind_of_task_refuses_what_no_task_could_take(kind):
    for name, value, parts in [
        ("items", 0, [f"{kind}_items=0", "1000000"]),
        ("items", True, [f"{kind}_items=True", "integer"]),
        ("seed", -1, [f"{kind}_seed=-1", "4294967295"]),
        ("sed", 3, [f"'{kind}_sed'", f"Did you mean '{kind}_seed'?"]),
    ]:
        for call in (dials.check_options, lambda metadata: dials.check_task(dial=kind, **metadata)):
            with raises_line(BadOptionError, *parts):
                call({f"{kind}_{name}": value})


def test_an_unknown_kind_is_refused_and_the_nearest_named():
    with raises_line(UnknownNameError, "'hop'", "Did you mean 'hops'?"):
        dials.check_task(dial="hop")


def test_options_of_other_kinds_and_model_arguments_change_nothing():
    assert dials.check_task(dial="hops", mqar_pairs=64, seed=3, pretrained="x") == dials.check_task(dial="hops")
