"""Misspelt names of task options, and options that no chosen task reads."""

from __future__ import annotations

import pytest
from refusals import raises_line

from harness_ext import BadOptionError
from harness_ext.host.task_metadata import check_names, families, nearest, unread
from harness_ext.tasks.dials import check_task

OPTIONS = [option for kind in families().values() for option in kind.names()]


def misspelt(option: str) -> list[str]:
    prefix = next(prefix for prefix in families() if option.startswith(prefix))
    stem, rest = prefix[:-1], option.removeprefix(prefix)
    return [
        f"{stem[:-1]}_{rest}" if stem.endswith("s") else f"{stem}s_{rest}", f"{stem}-{rest}", f"{stem}{rest}", option.upper(),
        f"{stem}.{rest}", f"{stem[0]}{stem}_{rest}",
    ]  # fmt: skip


@pytest.mark.parametrize("option", OPTIONS)
def test_a_misspelt_prefix_gets_the_nearest_option(option: str) -> None:
    assert nearest(option) is None
    for name in misspelt(option):
        assert nearest(name) == option, name
        with raises_line(BadOptionError, repr(name), repr(option)):
            check_names({name: 1})


@pytest.mark.parametrize(("name", "meant"), [("hop_stepz", "hops_steps"), ("realtions", "relations"), ("variable_step", "variables_steps")])
def test_both_parts_may_be_misspelt(name: str, meant: str) -> None:
    assert nearest(name) == meant


@pytest.mark.parametrize(
    "name",
    ["relations", "pretrained", "max_seq_lengths", "tokenizer", "max_items", "num_steps", "seed", "items", "data_seed", "top_k", "note"],
)
def test_names_of_others_pass(name: str) -> None:
    check_names({name: 1})


def test_an_option_that_no_chosen_task_reads_is_named_in_one_line() -> None:
    line = unread({"hops_steps": 2, "icl_items": 8, "note": 1}, [("icl_linear", ("icl_",))])
    assert line is not None
    assert "\n" not in line
    assert all(part in line for part in ("hops_steps", "icl_linear", "icl_*"))
    assert "note" not in line


@pytest.mark.parametrize(
    "readers",
    [[("icl_linear", ("icl_",)), ("kv_hops", ("hops_",))], [("icl_linear", ("icl_",)), None], []],
)
def test_one_reader_is_enough_and_unknown_tasks_may_read_any_option(readers: list[tuple[str, tuple[str, ...]] | None]) -> None:
    assert unread({"hops_steps": 2}, readers) is None


@pytest.mark.parametrize(
    ("dial", "option", "value", "least"),
    [("mqar", "pairs", 8, 16), ("counting", "length", 10, 20), ("hops", "chains", 4, 8), ("variables", "chains", 3, 6)],
)
def test_the_option_that_was_given_is_blamed_and_not_a_default(dial: str, option: str, value: int, least: int) -> None:
    with pytest.raises(BadOptionError) as raised:
        check_task(dial=dial, **{f"{dial}_{option}": value})
    first, _, rest = str(raised.value).partition(" with ")
    assert first == f"{dial}_{option}={value}"
    assert f"want at least {least}" in rest
    assert "(the default)" in rest
    check_task(dial=dial, **{f"{dial}_{option}": least})
    check_task(dial=dial, **{f"{dial}_{option}": value, f"{dial}_queries": 0})


@pytest.mark.parametrize(
    ("dial", "given", "fitting"),
    [
        ("mqar", {"queries": 40}, {"queries": 24}), ("mqar", {"queries": 40}, {"queries": 40, "pairs": 48}),
        ("mqar", {"values": 3}, {"values": 4}), ("hops", {"values": 8}, {"values": 2}), ("counting", {"most": 3}, None),
        ("hops", {"queries": 3}, {"queries": 4}), ("mqar", {"pairs": 9}, {"pairs": 16}),
    ],
)  # fmt: skip
def test_so_are_other_options_that_do_not_fit(dial: str, given: dict[str, int], fitting: dict[str, int] | None) -> None:
    with pytest.raises(BadOptionError) as raised:
        check_task(dial=dial, **{f"{dial}_{name}": value for name, value in given.items()})
    (name, value), *_ = given.items()
    assert f"{dial}_{name}={value}" in str(raised.value)
    assert f"{dial}_{name}={value} (the default)" not in str(raised.value)
    if fitting:
        assert str(raised.value).startswith(f"{dial}_{name}={value}")
        check_task(dial=dial, **{f"{dial}_{name}": value for name, value in fitting.items()})
