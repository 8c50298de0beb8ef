"""Texts for perplexity: files, and rows of the hub's data sets as the papers join them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
from refusals import raises_line

from harness_ext import BadOptionError
from harness_ext.tasks import corpora
from harness_ext.tasks.corpora import TextError, read


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Rows of the published schemas, and how they were asked for."""
    asked: list[tuple[Any, ...]] = []
    rows = {
        "Salesforce/wikitext": [{"text": ""}, {"text": " = Title = \n"}, {"text": " A line .\n"}],
        "allenai/c4": [{"text": f"Document {n}.", "timestamp": "2019-04-25T10:40:23Z", "url": f"http://e.org/{n}"} for n in range(1200)],
    }

    def load_dataset(*place: str, split: str, **more: Any) -> datasets.Dataset:
        asked.append((*place, split))
        return datasets.Dataset.from_list(rows[place[0]])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_wikitext2_is_the_test_split_with_two_line_feeds_between_the_rows(hub: list[tuple[Any, ...]]) -> None:
    found = read("wikitext2")
    assert found.text == "\n\n = Title = \n\n\n A line .\n"
    assert found.most is None
    assert hub == [("Salesforce/wikitext", "wikitext-2-raw-v1", "test")]


def test_c4_is_the_first_1100_documents_and_256_windows(hub: list[tuple[Any, ...]]) -> None:
    found = read("c4")
    assert found.text == " ".join(f"Document {n}." for n in range(1100))
    assert found.most == 256
    assert hub == [("allenai/c4", "validation")]


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Zeile eins.\n\n  größer\n", encoding="utf-8")
    found = read(str(path))
    assert found.text == "Zeile eins.\n\n  größer\n"
    other = tmp_path / "b.txt"
    other.write_text(found.text, encoding="utf-8")
    assert read(str(other)).digest == found.digest
    other.write_text(found.text + ".", encoding="utf-8")
    assert read(str(other)).digest != found.digest


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("wikitxt2", "Did you mean 'wikitext2'"),
        ("C4", "Did you mean 'c4'"),
        ("none.txt", "no such file"),
        ("", "no such file"),
        (".", "folder"),
    ],
)
def test_a_name_that_is_neither_a_file_nor_known_is_refused(name: str, says: str) -> None:
    with raises_line(BadOptionError, "text ", says):
        read(name)


@pytest.mark.parametrize(("content", "says"), [(b"", "empty"), (b" \n\t", "empty"), (b"\xff\xfe\x00", "not UTF-8")])
def test_a_file_without_text_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with raises_line(TextError, "a.txt", says):
        read(str(path))


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*_: object, **__: object) -> None:
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with raises_line(TextError, "'wikitext2'", "ConnectionError: no route"):
        read("wikitext2")


def test_rows_of_another_schema_are_refused() -> None:
    with raises_line(TextError, "c4, row 2", "'text'", "content"):
        corpora.c4([{"text": "a"}, {"content": "b"}])
