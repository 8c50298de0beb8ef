"""Progress off a terminal: lines in the log, also while a step takes long."""

from __future__ import annotations

import logging
import re
import time

import pytest

from harness_ext.engine import terminal


@pytest.fixture
def lines(caplog, monkeypatch):
    monkeypatch.setattr(terminal, "SECONDS_BETWEEN_LINES", 0.05)
    caplog.set_level(logging.INFO, logger="harness_ext")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_stage_says_that_it_begins_and_how_far_it_is(lines):
    with terminal.progress("wanda 0.5", 4) as advance:
        assert lines() == ["wanda 0.5: 4 steps"]
        advance()
        time.sleep(0.2)
    assert re.fullmatch(r"wanda 0\.5: 1 of 4 done after \d+ s, about \d+ s left", lines()[-1])
    count = len(lines())
    time.sleep(0.15)
    assert len(lines()) == count  # nothing more when the stage is over


def test_a_first_step_that_takes_long_is_told_as_well(lines):
    with terminal.progress("self", 2):
        time.sleep(0.2)
    assert "0 of 2 done" in lines()[-1]
    assert "not known" in lines()[-1]


def test_an_error_ends_the_lines(lines):
    with pytest.raises(ZeroDivisionError), terminal.progress("self", 2):
        raise ZeroDivisionError
    count = len(lines())
    time.sleep(0.15)
    assert len(lines()) == count


def test_the_log_is_shown_once_and_not_where_a_program_shows_it_itself(monkeypatch):
    package = logging.getLogger("harness_ext")
    monkeypatch.setattr(package, "handlers", [])
    monkeypatch.setattr(package, "level", logging.NOTSET)
    monkeypatch.setattr(logging.getLogger(), "handlers", [logging.NullHandler()])
    terminal.show_log()
    assert package.handlers == []
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    terminal.show_log()
    terminal.show_log()
    assert len(package.handlers) == 1
    assert package.level == logging.INFO
