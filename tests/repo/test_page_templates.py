"""Pages are Markdown: nothing is escaped, no name may lack a value, and a line of template logic leaves no line behind."""

from __future__ import annotations

import sys
from pathlib import Path

import jinja2
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from page_templates import fill


def test_a_page_has_the_values_as_they_are(tmp_path):
    template = tmp_path / "page.md.j2"
    template.write_text("# {{ title }}\n{% for row in rows %}\n| {{ row }} |\n{% endfor %}\n", encoding="utf-8")
    assert fill(template, title="a < b & c", rows=[1, 2]) == "# a < b & c\n| 1 |\n| 2 |\n"


def test_a_name_without_a_value_is_refused(tmp_path):
    template = tmp_path / "page.md.j2"
    template.write_text("{{ missing }}\n", encoding="utf-8")
    with pytest.raises(jinja2.UndefinedError, match="missing"):
        fill(template)
