"""Writes docs/hooks.md, the reference of the hooks, from ``harness_ext/hookspecs.py`` and the tests.

python scripts/write_hook_reference.py
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, StrictUndefined

from harness_ext import hookspecs

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "hooks.md"
TEMPLATE = """\
# Hooks

`python scripts/write_hook_reference.py` writes this page from `harness_ext/hookspecs.py`.
[plugins.md](plugins.md) explains how to write, test and publish a plugin.

{{ introduction }}
{% for hook in hooks %}

## {{ hook.name }}

```text
{{ hook.signature }}
```

{{ hook.summary }}

| argument | |
|---|---|
{% for name, text in hook.parameters.items() %}
| `{{ name }}` | {{ text }} |
{% endfor %}

```python
{{ hook.example }}
```

Tested by `{{ hook.test }}`.
{% endfor %}
"""


class Hook(NamedTuple):
    name: str
    signature: str
    summary: str
    parameters: dict[str, str]
    example: str
    test: str


def hooks() -> list[Hook]:
    """All hooks in the order of the file. Missing parts are empty."""
    named = [(name, value) for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.NAME}_spec")]
    return [read(name, value) for name, value in named]


def read(name: str, spec: object) -> Hook:
    """The parts of the docstring of a hook, and its test."""
    text, _, code = (inspect.getdoc(spec) or "").partition(".. code-block:: python\n")
    summary, *parameters = re.split(r"^:param ", text, flags=re.MULTILINE)
    described = {argument: markdown(words) for argument, _, words in (part.partition(":") for part in parameters)}
    signature = f"{name}{inspect.signature(spec)}".replace("'", "")  # type: ignore[arg-type]
    return Hook(name, signature, markdown(summary), described, textwrap.dedent(code).strip(), find_test(f"test_hook_{name}"))


def markdown(text: str) -> str:
    """Converts one paragraph of reStructuredText to Markdown."""
    return " ".join(re.sub(r":\w+:`([^`]+)`", r"`\1`", text).replace("``", "`").split())


def find_test(name: str) -> str:
    """``tests/FOLDER/FILE.py::NAME``, or an empty text if there is no such test."""
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        text = file.read_text(encoding="utf-8")
        if name in text and any(isinstance(node, ast.FunctionDef) and node.name == name for node in ast.parse(text).body):
            return f"{file.relative_to(ROOT).as_posix()}::{name}"
    return ""


def page() -> str:
    """The whole of docs/hooks.md."""
    introduction = inspect.getdoc(hookspecs) or ""
    before, _, rest = introduction.partition(".. code-block:: toml\n")
    toml = [line for line in rest.splitlines() if line.startswith("    ")]
    prose = [line for line in rest.splitlines() if not line.startswith("    ")]
    block = textwrap.dedent("\n".join(toml))
    shown = f"{markdown(before)}\n\n```toml\n{block}\n```\n\n{markdown(' '.join(prose))}"
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    return re.sub(r"\n{3,}", "\n\n", environment.from_string(TEMPLATE).render(introduction=shown, hooks=hooks()))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
