"""What code of others changes is put back."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import torch

from harness_ext import kept_environment, kept_generators


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def seed(value):
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


def test_variables_that_were_set_changed_or_deleted_are_put_back(monkeypatch):
    monkeypatch.setenv("HARNESS_EXT_CHANGED", "old")
    monkeypatch.setenv("HARNESS_EXT_DELETED", "there")
    monkeypatch.delenv("HARNESS_EXT_SET", raising=False)
    before = dict(os.environ)

    def meddle():
        with kept_environment(HARNESS_EXT_GIVEN="yes"):
            assert os.environ["HARNESS_EXT_GIVEN"] == "yes"
            os.environ["HARNESS_EXT_CHANGED"] = os.environ["HARNESS_EXT_SET"] = "new"
            del os.environ["HARNESS_EXT_DELETED"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        meddle()
    assert dict(os.environ) == before


def test_generators_go_on_where_they_were_and_are_seeded_meanwhile():
    with kept_generators():
        seed(3)
        expected = draw()
        seed(7)
        seeded = draw()
        seed(3)
        with kept_generators(seed=7):
            assert draw() == seeded
        assert draw() == expected


def test_generators_that_are_not_seeded_go_on_meanwhile():
    with kept_generators():
        seed(3)
        expected = draw()
        seed(3)
        with kept_generators():
            assert draw() == expected
        assert draw() == expected
