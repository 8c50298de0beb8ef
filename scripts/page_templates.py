"""Markdown pages from Jinja templates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2


def fill(template: Path, **values: Any) -> str:
    """The text of a template with its values. It may include templates of its folder.

    Raises:
        jinja2.UndefinedError: the template has a name without a value.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    return environment.get_template(template.name).render(values)
