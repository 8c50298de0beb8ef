"""The built-in plugins keep to the contracts that other authors test theirs with."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
from environment import ROOT
from harness_ext_calibrations.file import File
from harness_ext_pruners.alps import ALPS
from harness_ext_pruners.stored import Stored

from harness_ext import prune
from harness_ext.plugins import Plugins
from harness_ext.testing import AllocationContract, CalibrationContract, PrunerContract, QuantizerContract
from harness_ext.testing.contracts import given
from harness_ext.weights.masks import save_masks

OWN = (
    "harness_ext_pruners",
    "harness_ext_quantizers",
    "harness_ext_allocations",
    "harness_ext_calibrations",
)  # adapters of other libraries have tests of their own
plugins = Plugins()


def built_in(registry):
    return {name for name, (_, origin) in registry.items.items() if origin.module in OWN}


class TestRandom(PrunerContract):
    pruner = "random"


class TestMagnitude(PrunerContract):
    pruner = "magnitude"


class TestWanda(PrunerContract):
    pruner = "wanda"


class TestRIA(PrunerContract):
    pruner = "ria"


class TestDSnoT(PrunerContract):
    pruner = "dsnot"


class TestDSnoTOfSparseGPT(PrunerContract):
    pruner = "dsnot"
    options: ClassVar = {"start": "sparsegpt"}


class TestSparseGPT(PrunerContract):
    pruner = "sparsegpt"


class TestADMM(PrunerContract):
    pruner = "admm"


class TestALPS(PrunerContract):
    def pruner(self):
        return ALPS(iterations=30)


class TestDepth(PrunerContract):
    pruner = "depth"
    quality_sparsity = 0.3  # one decoder block of three; with two gone, nothing is left to compare


class TestWidth(PrunerContract):
    pruner = "width"


class TestStored(PrunerContract):
    """The masks are those of another pruner on the model that is about to be pruned."""

    pruner = "stored"

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path

    def pruner_for(self, model, sparsity):
        masks = self.folder / f"masks{len(list(self.folder.iterdir()))}"
        with given.told_in_one_line():
            other = given.lab_model() if model.config.hidden_size != given.WIDTH else given.small_model()
            other.load_state_dict(model.state_dict())
            if sparsity.pattern == (2, 7):
                sparsity = type(sparsity).parse(0.5)
            save_masks(other, prune(other, pruner="magnitude", sparsity=sparsity), masks)
        return Stored(path=str(masks))


class TestRTN(QuantizerContract):
    quantizer = "rtn"


class TestGPTQ(QuantizerContract):
    quantizer = "gptq"


class TestGPTQInOrderOfTheHessian(QuantizerContract):
    quantizer = "gptq"
    options: ClassVar = {"act_order": True}
    patterns = ()


class TestGPTQWithStaticGroups(QuantizerContract):
    quantizer = "gptq"
    options: ClassVar = {"static_groups": True, "symmetric": True}


class TestUniform(AllocationContract):
    allocation = "uniform"


class TestOWL(AllocationContract):
    allocation = "owl"


class TestGlobal(AllocationContract):
    allocation = "global"


class TestList(AllocationContract):
    """A file that gives every layer what was asked for."""

    allocation = "list"

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path):
        self.folder = tmp_path

    def allocation_for(self, model, sparsity):
        file = self.folder / "list.json"
        file.write_text(json.dumps({"*": str(sparsity)}), encoding="utf-8")
        return plugins.allocations.get("list")[0](path=str(file))


class TestSelf(CalibrationContract):
    calibration = "self"


class TestFile(CalibrationContract):
    def calibration(self):
        return File(path=str(ROOT / "README.md"))


class TestHub(CalibrationContract):
    calibration = "hub"
    options: ClassVar = {"dataset": "allenai/c4"}

    @pytest.fixture(autouse=True)
    def _rows(self, monkeypatch):
        import datasets

        text = (ROOT / "README.md").read_text(encoding="utf-8")
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"text": line} for line in text.splitlines()])


def test_every_built_in_plugin_is_tested_here():
    classes = [value for value in globals().values() if isinstance(value, type)]
    named = {getattr(cls, kind) for cls in classes for kind in ("pruner", "quantizer", "allocation", "calibration") if hasattr(cls, kind)}
    missing = built_in(plugins.pruners) | built_in(plugins.allocations) | built_in(plugins.calibrations)
    given_by_methods = {TestALPS().pruner().name, TestFile().calibration().name}
    assert missing == {name for name in named if isinstance(name, str)} | given_by_methods
