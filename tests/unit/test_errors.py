"""The errors of the package, and how their messages are written."""

from __future__ import annotations

import inspect
import re

import pytest

from harness_ext import errors


def test_the_docstring_lists_the_errors_of_the_module_below_their_bases() -> None:
    branches: list[tuple[int, str]] = [(0, "HarnessExtError")]
    parents = {}
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([ |]*)\+-- (\w+)", line):
            depth = len(found[1])
            branches = [branch for branch in branches if branch[0] < depth]
            parents[found[2]] = branches[-1][1]
            branches.append((depth, found[2]))
    own = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]
    assert parents == {cls.__name__: cls.__bases__[0].__name__ for cls in own if cls is not errors.HarnessExtError}


@pytest.mark.parametrize("words", [1, 400])
def test_a_whole_message_is_left_as_long_as_it_is(words: int) -> None:
    message = " \n ".join(["word"] * words)
    assert errors.one_line(ValueError(message), whole=True) == " ".join(["word"] * words)
    assert len(errors.one_line(ValueError(message))) <= errors.LONGEST
    assert errors.one_line(ValueError(), whole=True) == errors.one_line(ValueError()) == "ValueError"


def test_the_nearest_name_is_told_if_there_is_one() -> None:
    assert errors.nearest("wnada", ["ria", "wanda"]) == "wanda"
    assert errors.nearest("wnada", ["ria"]) is None
    assert errors.did_you_mean("wnada", ["ria", "wanda"]) == " Did you mean 'wanda'?"
    assert errors.did_you_mean("wnada", ["ria"]) == ""
