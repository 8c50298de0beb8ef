"""Documents for the calibration: texts from Python, and conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import tiny
from harness_ext_calibrations.file import File
from harness_ext_calibrations.hub import Hub
from transformers import PreTrainedTokenizerFast

from harness_ext import BadOptionError, CalibrationError, Documents, HarnessExtError, PluginError, PrunedHFLM, prune
from harness_ext.method.calibration import digest
from harness_ext.method.documents import Texts

LETTERS = " ".join("abcdefghijklmnopqrstuvwxyz" * 2)
TEMPLATE = "{% for message in messages %}{{ message['role'][0] }} : {{ message['content'] }} , {% endfor %}"
STRICT = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('Roles must\nalternate') }}{% endif %}" + TEMPLATE
TALK = [{"role": "user", "content": "a b c d e"}, {"role": "assistant", "content": "f g h i j"}]
LONG = "x y " * 5000
SMALL: dict[str, Any] = {"samples": 6, "length": 8}


def tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    built = tiny.tokenizer()
    built.chat_template = template
    return built


def is_window(row: list[int], tokens: list[int]) -> bool:
    return any(tokens[start : start + len(row)] == row for start in range(len(tokens) - len(row) + 1))


def jsonl(folder: Path, *rows: Any) -> str:
    file = folder / "talks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def pruned(texts: Any, model: Any, options: dict[str, Any] = SMALL) -> dict[str, Any]:
    how: dict[str, Any] = {"pruner": "wanda", "sparsity": 0.5, "tokenizer": tiny.tokenizer()}
    return prune(model, calibration=texts, calibration_options=options, **how)


class TestTexts:
    def test_are_calibration_text_like_a_file_of_them(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text(LETTERS)
        records = [
            pruned(given, model := tiny.model()) | {"weights": tiny.weights(model)}
            for given in ([LETTERS], (LETTERS,), str(tmp_path / "a.txt"), tmp_path / "a.txt")
        ]  # fmt: skip
        assert len({record["calibration"]["digest"] for record in records}) == 1
        assert all(tiny.same(record["weights"], records[0]["weights"]) for record in records)
        assert records[0]["fingerprint"] == records[2]["fingerprint"]

    def test_are_in_the_record_by_number_and_digest(self) -> None:
        record, other = (
            pruned(texts, tiny.model())
            for texts in ([LETTERS, LETTERS], [LETTERS, LETTERS[2:]])
        )  # fmt: skip
        assert record["plan"]["calibration"] == "texts"
        options = record["plan"]["calibration_options"]
        assert (options["documents"], options["samples"]) == (2, 6)
        assert options["documents_digest"] != other["plan"]["calibration_options"]["documents_digest"]
        assert LETTERS not in json.dumps(record)

    def test_work_for_pruned_hf(self, tmp_path: Path) -> None:
        folder = tiny.checkpoint(tmp_path)
        options = {f"calibration.{name}": value for name, value in SMALL.items()}
        lm = PrunedHFLM(pretrained=folder, pruner="wanda", sparsity=0.5, calibration=[LETTERS], device="cpu", **options)
        assert lm.pruning_record["calibration"]["digest"] == digest(Texts.of([LETTERS], SMALL).input_ids(lm.model, lm.tokenizer))

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ([], r"calibration=\[\]: want at least one text"),
            ([LETTERS, 3], r"calibration\[1\]: want texts.*found 3"),
            ([[1, 2, 3]], r"calibration\[0\]: want texts, or int64 token ids \[samples, length\] in a tensor; found \[1, 2, 3\]"),
            ([TALK], r"calibration\[0\]: want texts"),
            ([None], r"calibration\[0\]: want texts"),
            ({"a": 1}, "calibration="),
            (7, "calibration=7"),
            (None, "calibration=None"),
            (b"text", "calibration=b'text'"),
            ("a text of some words", r"calibration='a text of some words': no such file\. Text itself is passed in a list"),
            (LONG, "no such file. Text itself is passed in a list"),
            ("two\nlines", "no such file. Text itself is passed in a list"),
            (f"{'x' * 5000}.txt", "no such file"),
            ("x" * 5000, "no calibration named"),
            ([LONG, {"a": LONG}], r"calibration\[1\]: want texts"),
            ([[LONG]], "want texts"),
        ],
    )
    def test_of_another_kind_are_refused_in_a_short_line(self, given: Any, message: str) -> None:
        with pytest.raises(HarnessExtError, match=message) as error:
            prune(tiny.model(), pruner="wanda", sparsity=0.5, calibration=given, tokenizer=tiny.tokenizer())
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 600

    @pytest.mark.parametrize(
        ("options", "message"), [({"smaples": 3}, "samples"), ({"samples": 0}, "samples=0"), ({"documents": ()}, "pass")]
    )
    def test_have_the_options_of_every_source(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(BadOptionError, match=message):
            prune(
                tiny.model(), pruner="wanda", sparsity=0.5, calibration=[LETTERS], calibration_options=options, tokenizer=tiny.tokenizer()
            )

    def test_need_a_tokenizer(self) -> None:
        with pytest.raises(CalibrationError, match="needs a tokenizer: pass tokenizer="):
            prune(tiny.model(), pruner="wanda", sparsity=0.5, calibration=[LETTERS])


class TestConversations:
    def sources(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Any, **options: Any) -> list[Documents]:
        """The same row from a file and from the hub."""
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: iter([row] * 9))
        options = {"chat_template": True, **SMALL, **options}
        made: list[Documents] = [File(path=jsonl(tmp_path, row, row), **options), Hub(dataset="x", **options)]
        return made

    @pytest.mark.parametrize("field", [None, "talk"])
    def test_become_text_by_the_chat_template(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str | None) -> None:
        options = {"field": field} if field else {}
        expected = tokenizer()("u : a b c d e , a : f g h i j , " * 9)["input_ids"]
        found = []
        sources = self.sources(tmp_path, monkeypatch, {field or "messages": TALK}, **options)
        for source in (*sources, Texts.of([TALK, TALK], {"chat_template": True, **SMALL})):
            source.check()
            ids = source.input_ids(tiny.model(), tokenizer())
            assert ids.shape == (6, 8)
            assert all(is_window(row, expected) for row in ids.tolist())
            found.append(digest(ids))
        assert len(found) == 3
        assert found[0] == found[2]

    @pytest.mark.parametrize(
        ("row", "template", "message"),
        [
            ({"text": "a b c"}, TEMPLATE, r"chat_template=True wants an object with a list 'messages', found: text"),
            ({"messages": "a b c"}, TEMPLATE, r"wants an object with a list 'messages'"),
            ({"messages": []}, TEMPLATE, r"wants an object with a list 'messages'"),
            ({"messages": [["user", "a"]]}, TEMPLATE, r"want messages with 'role' and 'content', found: \['user', 'a'\]"),
            ({"messages": [{"role": "user"}]}, TEMPLATE, r"want messages with 'role' and 'content'"),
            ({"messages": [{"from": "human", "value": LONG}]}, TEMPLATE, r"want messages with 'role' and 'content'"),
            ({"messages": TALK[1:]}, STRICT, r"the chat template does not take these messages: Roles must alternate"),
        ],
    )
    def test_that_are_none_are_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Any, template: str, message: str
    ) -> None:  # fmt: skip
        file, hub = self.sources(tmp_path, monkeypatch, row)
        for source, where in ((file, r"talks\.jsonl:1"), (hub, "x, row 1")):
            with pytest.raises(
                CalibrationError, match="has the fields text" if "text" in row and source is hub else f"{where}: .*{message}"
            ) as error:
                source.input_ids(tiny.model(), tokenizer(template))
            assert "\n" not in str(error.value)
            assert len(str(error.value)) < 500

    def test_are_found_wrong_at_the_check_of_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(CalibrationError, match="want messages"):
            File(path=jsonl(tmp_path, {"messages": [{}]}), chat_template=True).check()
        (tmp_path / "a.txt").write_text("a b c")
        with pytest.raises(BadOptionError, match=r"wants a \.jsonl file with messages"):
            File(path=str(tmp_path / "a.txt"), chat_template=True).check()

    def test_without_the_option_are_refused_with_a_hint(self, tmp_path: Path) -> None:
        with pytest.raises(CalibrationError, match=r"found: messages; calibration\.chat_template=true reads messages"):
            File(path=jsonl(tmp_path, {"messages": TALK})).check()

    def test_want_a_tokenizer_with_a_template(self, tmp_path: Path) -> None:
        source = File(path=jsonl(tmp_path, {"messages": TALK}), chat_template=True, **SMALL)
        with pytest.raises(CalibrationError, match=r"calibration\.chat_template=True: the tokenizer has no chat template"):
            source.input_ids(tiny.model(), tokenizer(None))


def test_a_plugin_with_documents_overrides_rows() -> None:
    class Own(Documents):
        """Two rows."""

        name = "own"

        def rows(self) -> Any:
            yield "first", "a b c d"
            yield "second", {"text": "e f g h"}

    class Idle(Documents):
        """None."""

        name = "idle"

    Own.check_class()
    assert list(Own().texts()) == ["a b c d", "e f g h"]
    with pytest.raises(PluginError, match="does not override rows"):
        Idle.check_class()
