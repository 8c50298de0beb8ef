"""No context manager made of a generator swallows an error.

From Python 3.12 such an error stays alive until the garbage collector runs, and with it all tensors of the frames that it came through.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [path for folder in ("harness_ext", "plugins", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]


def swallowing(source: str) -> Iterator[str]:
    """The context managers in a source text that go on after an error at their ``yield``."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef) and any("contextmanager" in ast.unparse(mark) for mark in function.decorator_list):
            for node in ast.walk(function):
                suppresses = isinstance(node, ast.With) and any("suppress" in ast.unparse(item) for item in node.items)
                handles = isinstance(node, ast.Try) and not all(map(_ends_in_an_error, node.handlers))
                if (suppresses or handles) and any(isinstance(inner, ast.Yield) for part in node.body for inner in ast.walk(part)):
                    yield function.name


def _ends_in_an_error(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) or (isinstance(last, ast.Expr) and ast.unparse(last).startswith("fail("))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_context_manager_made_of_a_generator_swallows_an_error(path):
    assert not list(swallowing(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("body", "swallows"),
    [
        ("with suppress(KeyError):\n        yield", True),
        ("try:\n        yield\n    except KeyError:\n        pass", True),
        ("try:\n        yield\n    except KeyError as error:\n        raise ValueError from error", False),
        ("try:\n        yield\n    finally:\n        close()", False),
        ("with suppress(KeyError):\n        open()\n    yield", False),
    ],
)
def test_such_context_managers_are_found(body, swallows):
    assert bool(list(swallowing(f"@contextmanager\ndef manager():\n    {body}\n"))) == swallows
