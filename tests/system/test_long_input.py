"""Whatever is passed, and however long it is: an error is one line that shows at most 200 characters of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import PreTrainedModel
from typer.testing import CliRunner

from harness_ext import HarnessExtError, PrunedHFLM, prune
from harness_ext.commands.cli import app
from harness_ext.errors import LONGEST, one_line, shortened, shown

MARK = "qzx"
KINDS = {"words": f"{MARK} {MARK}\n" * 1000, "file": MARK * 2000 + ".json", "path": f"{MARK}/" * 2000}
PLAN = ("pruner", "sparsity", "modules", "calibration", "allocation", "precision", "true_sequential", "experts", "strict")
OPTIONS = (
    "pruner.block_size", "pruner.qzx", "calibration.samples", "calibration.bos", "calibration.path", "calibration.qzx", "allocation.qzx",
)  # fmt: skip
OF_HF = ("qzx.a", "dtype", "device", "sparsty", "peft", "load_in_4bit", "tp_plan", "share_prompts", "gguf_file")
OF_PRUNE = ("pretrained", "pruner", "sparsity", "modules", "calibration", "allocation", "precision", "dtype", "device", "out", "option")
OF_SWEEP = (*OF_PRUNE[:-2], "seeds", "tasks", "metadata", "include-path", "limit", "batch-size", "option", "engine", "config", "address")

long_kinds = pytest.mark.parametrize("kind", KINDS)


def check(message: str) -> None:
    assert "\n" not in message
    assert message.count(MARK) * len(MARK) <= LONGEST * (1 + message.count("..."))
    assert len(message) < 1500


def raised(call: Any) -> None:
    with pytest.raises(HarnessExtError) as error:
        call()
    check(str(error.value))


def printed(words: list[str]) -> None:
    done = CliRunner().invoke(app, words)
    assert done.exit_code != 0
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    if done.exit_code == 1:
        (line,) = done.stderr.splitlines()
        check(line)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint without its weights: what is wrong is said before they are read. Not to be changed."""
    made = Path(tiny.checkpoint(tmp_path_factory.mktemp("model") / "in"))
    (made / "model.safetensors").unlink()
    return made


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    """A model that nothing here prunes."""
    return tiny.model()


@long_kinds
@pytest.mark.parametrize("name", PLAN)
def test_from_python(kind: str, name: str, model: PreTrainedModel) -> None:
    for value in (KINDS[kind], [KINDS[kind]], {KINDS[kind]: KINDS[kind]}, (3, KINDS[kind])):
        arguments: dict[str, Any] = {"pruner": "wanda", "sparsity": 0.5, "calibration": tiny.token_ids()} | {name: value}
        raised(lambda arguments=arguments: prune(model, **arguments))


@long_kinds
def test_a_folder_to_resume_from(kind: str, tmp_path: Path, model: PreTrainedModel) -> None:
    for value in (str(tmp_path / KINDS[kind]), [KINDS[kind]], {KINDS[kind]: KINDS[kind]}, (3, KINDS[kind])):
        arguments: dict[str, Any] = {"resume": value}
        raised(lambda arguments=arguments: prune(model, pruner="wanda", sparsity=0.5, calibration=tiny.token_ids(), **arguments))


@long_kinds
@pytest.mark.parametrize("name", OPTIONS)
def test_options_from_python(kind: str, name: str, model: PreTrainedModel) -> None:
    owner, _, option = name.partition(".")
    calibration = "file" if name == "calibration.path" else "self"
    options = {f"{owner}_options": {option.replace("qzx", KINDS[kind]): KINDS[kind]}}
    raised(lambda: prune(model, pruner="sparsegpt", sparsity=0.5, calibration=calibration, **options))


@long_kinds
@pytest.mark.parametrize("name", [*PLAN, *OPTIONS, *OF_HF])
def test_model_arguments(kind: str, name: str, folder: Path) -> None:
    arguments: dict[str, Any] = {"pruner": "wanda", "sparsity": 0.5, "calibration": "self", "device": "cpu"}
    arguments |= {"calibration": "file"} if name == "calibration.path" else {}
    arguments |= {name.replace("qzx", KINDS[kind]) if "qzx" in name else name: KINDS[kind]}
    if name == "sparsty":
        arguments["sparsity" + KINDS[kind]] = arguments.pop("sparsty")
        with pytest.raises((HarnessExtError, OSError)) as error:  # hf hands it on to from_pretrained
            PrunedHFLM(pretrained=str(folder), **arguments)
        check(str(error.value))
        return
    raised(lambda: PrunedHFLM(pretrained=str(folder), **arguments))


@long_kinds
@pytest.mark.parametrize("option", [*OF_PRUNE, "gguf-file", "experts"])
def test_prune_command(kind: str, option: str, folder: Path, tmp_path: Path) -> None:
    given = {"--pretrained": str(folder), "--sparsity": "0.5", "--pruner": "magnitude", "--out": str(tmp_path / "out")}
    given |= {f"--{option}": KINDS[kind]}
    printed(["prune", *(word for pair in given.items() for word in pair)])


@long_kinds
@pytest.mark.parametrize("option", OF_SWEEP)
def test_sweep_command(kind: str, option: str, tmp_path: Path) -> None:
    given = {
        "--pretrained": "lab-xs",
        "--sparsity": "0.5",
        "--pruner": "magnitude",
        "--tasks": "icl_linear",
        "--out": str(tmp_path / "out"),
    }
    given |= {f"--{option}": KINDS[kind]}
    printed(["sweep", *(word for pair in given.items() for word in pair)])


@pytest.mark.parametrize("text", [*KINDS.values(), f"{MARK}/" * 900], ids=[*KINDS, "path that the system takes"])
@pytest.mark.parametrize(
    "words",
    [["report"], ["known-facts", "--out", "x.json", "--metadata"], ["known-facts", "--out"], ["new-plugin"],
     ["new-plugin", "mine", "--kind"], ["new-plugin", "mine", "--out"]],
    ids=" ".join,
)  # fmt: skip
def test_other_commands(text: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    printed([*words, text])


@long_kinds
def test_a_line_of_a_file(kind: str, tmp_path: Path) -> None:
    for content in ({KINDS[kind]: 1}, [KINDS[kind]], {"text": [KINDS[kind]]}, {"messages": KINDS[kind]}):
        (tmp_path / "a.jsonl").write_text(json.dumps(content) + "\n")
        for chat in (False, True):
            options = {"chat_template": chat}
            raised(
                lambda options=options: prune(
                    tiny.model(), pruner="wanda", sparsity=0.5, calibration=str(tmp_path / "a.jsonl"), calibration_options=options
                )
            )


class TestHelpers:
    @pytest.mark.parametrize("value", ["a", "it's", 3, 0.5, None, True, [1, "a"], ("a",), {"a": 1}, b"a", 2**40])
    def test_what_is_short_is_shown_as_python_writes_it(self, value: Any) -> None:
        assert shown(value) == repr(value)

    @pytest.mark.parametrize(
        "value",
        ["x" * 10_000, "x\n" * 10_000, ["x" * 10_000] * 50, {"x" * 10_000: "y" * 10_000}, 10**4000, torch.zeros(300, 300),
         [[["x" * 500]] * 500] * 500, dict.fromkeys(range(999), "x" * 99), b"x" * 10_000, "é" * 10_000],
        ids=range(10),
    )  # fmt: skip
    def test_what_is_long_is_cut_in_one_line(self, value: Any) -> None:
        assert len(shown(value)) <= LONGEST
        assert "\n" not in shown(value)

    def test_the_middle_of_a_text_is_left_out(self) -> None:
        text = shortened("begin" + "x" * 1000 + "end")
        assert len(text) <= LONGEST
        assert text.startswith("beginx")
        assert text.endswith("xend")
        assert shortened("two\n lines") == "two lines"

    def test_an_error_without_a_text_is_its_name(self) -> None:
        assert one_line(ValueError("a\nb")) == "a b"
        assert one_line(ValueError()) == "ValueError"
