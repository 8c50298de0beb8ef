"""Command lines of ``lm_eval``: its own parser reads back the arguments that they were built from."""

from __future__ import annotations

import json
import shlex
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval._cli.harness import HarnessCLI

from harness_ext.host.command_line import ARGUMENTS, MAPPINGS, lm_eval_command, typed_command

ODD_TEXTS = [
    "a b", "it's", '"quoted"', "a,b", "a=b", "a=b,c=d", '{"a": 1}', "{", "[1, 2]", "-5", "--tasks", "", " ", "None", "true", "FALSE", "nan",
    "Infinity", "1e5", "0x10", "1_000", "...", "²", "0.5", "2:4", "/a/b-c.txt", "~/x", "./a", "all,!model.layers.0.*", "#", "a#b", "a\nb",
    "$HOME", "`ls`", "\\", "model.layers.*", "*.q_proj", "**", "b'x'", "()", "1+1j", "@file",
]  # fmt: skip
TEXTS = st.one_of(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), st.sampled_from(ODD_TEXTS))
NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False))
VALUES = st.recursive(
    st.one_of(TEXTS, NUMBERS, st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=6,
)
NAMES = st.one_of(st.sampled_from(["pretrained", "pruner.block_size", "calibration.seed"]), TEXTS)
MAPPING = st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)
WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0,"), min_size=1, max_size=12)


CLI = HarnessCLI()


def read_back(text: str) -> dict:
    """What lm-eval makes of a line that was typed into a shell."""
    before = sys.argv
    sys.argv = shlex.split(text, comments=True)
    try:
        return vars(CLI.parse_args())
    finally:
        sys.argv = before


def same(first, second) -> bool:
    """Equal, and of the same types all the way down."""
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(MAPPINGS), MAPPING)
def test_mappings_are_read_back(name, values):
    assert same(read_back(str(lm_eval_command({"tasks": ["a"], name: values})))[name], values)


@settings(max_examples=300, deadline=None)
@given(TEXTS.filter(bool), st.lists(WORD, min_size=1, max_size=3))
def test_texts_and_lists_are_read_back(text, tasks):
    arguments = {"tasks": tasks, "system_instruction": text, "include_path": [text], "apply_chat_template": text, "device": text}
    found = read_back(str(lm_eval_command(arguments)))
    assert found["tasks"] == tasks
    assert {found[name] for name in ("system_instruction", "include_path", "apply_chat_template", "device")} == {text}


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "model_args": MAPPING,
            "metadata": MAPPING,
            "num_fewshot": st.integers(0, 99),
            "limit": st.one_of(st.integers(1, 10**9).map(float), st.floats(1e-9, 1, exclude_max=True)),
            "samples": st.dictionaries(WORD, st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=2),
            "batch_size": st.sampled_from(["1", "16", "auto", "auto:4"]),
            "max_batch_size": st.integers(1, 99),
            "seed": st.lists(st.one_of(st.none(), st.integers(0, 99)), min_size=4, max_size=4),
            "apply_chat_template": st.just(True),
            "fewshot_as_multiturn": st.booleans(),
            "predict_only": st.just(True),
            "trust_remote_code": st.just(True),
            "confirm_run_unsafe_code": st.just(True),
        },
    )
)
def test_all_arguments_together_are_read_back(arguments):
    found = read_back(str(lm_eval_command({"model": "pruned-hf", "tasks": ["a", "b"], **arguments})))
    assert found["model"] == "pruned-hf"
    for name in set(ARGUMENTS) & set(found) - {"model", "tasks"}:
        expected = arguments.get(name, [0, 1234, 1234, 1234] if name == "seed" else None)
        assert found[name] == expected or (name == "seed" and found[name] is None and expected == [0, 1234, 1234, 1234]), name


def test_a_short_command_stays_short():
    arguments = {"model_args": {"pretrained": "lab-m", "pruner": "wanda", "sparsity": 0.5, "modules": "*.q_proj"}, "tasks": ["icl", "kv_4"]}
    text = "lm_eval --model pruned-hf --model_args 'pretrained=lab-m,pruner=wanda,sparsity=0.5,modules=*.q_proj' --tasks icl,kv_4"
    assert str(lm_eval_command(arguments)) == text
    assert str(lm_eval_command({"tasks": ["icl"]}, processes=2)).startswith("accelerate launch --num_processes 2 -m lm_eval --model")


def test_what_cannot_be_said_is_named():
    command = lm_eval_command({"tasks": ["a", "b,c", {"task": "inline"}], "include_path": ["/one", "/two"]}, lacks=["the weather"])
    assert command.words[-4:] == ("--tasks", "a", "--include_path", "/one")
    assert [lack.partition(" (")[0] for lack in command.lacks] == [
        "the weather", "the task 'b,c'", "the task {'task': 'inline'}", "--include_path /two",
    ]  # fmt: skip
    assert read_back(str(command))["include_path"] == "/one"


def test_an_argument_that_changes_no_score_is_refused():
    with pytest.raises(KeyError, match="output_path"):
        lm_eval_command({"tasks": ["a"], "output_path": "x"})


class TestTyped:
    def test_the_command_of_this_process_is_written_out_without_what_changes_no_score(self, monkeypatch):
        words = ["--model", "pruned-hf", "--model_args", "pretrained=lab-xs,sparsity=0.5", "--tasks", "a,b", "c", "--num_fewshot", "0"]
        words += ["--gen_kwargs", "temperature=0,until=['x y']", "--apply_chat_template", "--output_path", "x", "--log_samples"]
        words += ["--seed", "3", "--limit", "0.25", "--fewshot_as_multiturn", "false", "--metadata", '{"icl_items": 8}']
        monkeypatch.setattr(sys, "argv", ["/bin/lm_eval", *words])
        expected = vars(HarnessCLI().parse_args())
        command = typed_command()
        assert "--output_path" not in command.words
        assert "--log_samples" not in command.words
        found = read_back(str(command))
        assert {name: found.get(name) for name in ARGUMENTS} == {name: expected.get(name) for name in ARGUMENTS}

    def test_a_file_of_arguments_is_written_out(self, monkeypatch, tmp_path):
        config = tmp_path / "run.yaml"
        config.write_text(
            "model: pruned-hf\nmodel_args: pretrained=lab-xs,sparsity=0.5\ntasks: [a, b]\nnum_fewshot: 2\nseed: 7\nlimit: 4\n"
            "metadata: {icl_items: 8}\ninclude_path: /tasks\n"
        )
        monkeypatch.setattr(sys, "argv", ["lm_eval", "--config", str(config), "--num_fewshot", "1"])
        found = read_back(str(typed_command()))
        assert (found["num_fewshot"], found["limit"], found["seed"], found["tasks"]) == (1, 4.0, [7] * 4, ["a", "b"])
        assert found["model_args"] == {"pretrained": "lab-xs", "sparsity": 0.5}
        assert json.loads(json.dumps(found["metadata"])) == {"icl_items": 8}
        assert (found["include_path"], found["config"]) == ("/tasks", None)

    @pytest.mark.parametrize(
        "words",
        [
            ["my_script.py", "--model", "pruned-hf", "--tasks", "a"],
            ["lm_eval.py", "--mine", "1", "2"],
            ["lm_eval.py"],
            ["lm_eval", "ls", "tasks"],
        ],
    )
    def test_another_program_has_none(self, monkeypatch, capsys, words):
        monkeypatch.setattr(sys, "argv", list(words))
        assert typed_command() is None
        assert sys.argv == words
        assert capsys.readouterr() == ("", "")
