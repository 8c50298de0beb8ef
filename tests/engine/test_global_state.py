"""What code of others changes is put back."""

from __future__ import annotations

import os
import random

import numpy as np
import pytest
import tiny
import torch

from harness_ext import Hessian, Pruner, kept_environment, kept_generators, prune
from harness_ext.engine.global_state import full_float32


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


def precision():
    """All that says how torch multiplies float32 numbers; the older settings cannot be read where the newer ones contradict them."""

    def read(setting):
        try:
            return setting()
        except RuntimeError:
            return "unreadable"

    backends = torch.backends
    newer = [getattr(backend, name).fp32_precision for backend in (backends.cudnn, backends.mkldnn) for name in ("conv", "rnn")]
    newer += [backends.cuda.matmul.fp32_precision, backends.mkldnn.matmul.fp32_precision, backends.fp32_precision]
    older = [torch.get_float32_matmul_precision, lambda: backends.cuda.matmul.allow_tf32, lambda: backends.cudnn.allow_tf32]
    return [*newer, *map(read, older)]


@pytest.fixture
def any_precision():
    backends = torch.backends
    places = [backends.cuda.matmul, backends.mkldnn.matmul, backends.cudnn.conv, backends.cudnn.rnn]
    before = [place.fp32_precision for place in places]
    yield
    torch.set_float32_matmul_precision("highest")
    for place, value in zip(places, before, strict=True):
        place.fp32_precision = value


SETTINGS = {
    "default": lambda: None,
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "the newer one": lambda: setattr(torch.backends.cuda.matmul, "fp32_precision", "tf32"),
    "of the CPU": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "no convolutions": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.usefixtures("any_precision")
def test_float32_is_multiplied_as_such_and_what_the_caller_set_is_put_back(setting):
    SETTINGS[setting]()
    before = precision()
    inside = []

    def meddle():
        with full_float32():
            inside.append(precision())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        meddle()
    assert inside[0][:6] == 6 * ["ieee"]
    assert inside[0][-3:] == ["highest", False, False]
    assert precision() == before


@pytest.mark.usefixtures("any_precision")
def test_pruning_asks_for_full_float32():
    seen = []

    class Own(Pruner):
        name = "own"
        statistic = Hessian

        def score(self, weight, statistic):
            seen.append(torch.get_float32_matmul_precision())
            return weight.abs()

    torch.set_float32_matmul_precision("medium")
    prune(tiny.model(), pruner=Own(), sparsity=0.5, calibration=tiny.token_ids())
    assert set(seen) == {"highest"}
    assert torch.get_float32_matmul_precision() == "medium"
