"""The pruning record, and what its fingerprint depends on."""

from __future__ import annotations

import json
from importlib import metadata

import pytest
import tiny
import torch

from harness_ext import prune
from harness_ext.method.calibration import digest

BASE = {"sparsity": 0.5, "calibration_options": {"samples": 3, "length": 8}}


def fingerprint(model=None, **changes):
    return prune(model or tiny.model(), **(BASE | changes))["fingerprint"]


def test_the_record_says_what_was_done_in_json_values():
    model = tiny.model(tie_word_embeddings=True)
    record = prune(model, pruner="sparsegpt", sparsity=0.29, calibration=tiny.token_ids(), pruner_options={"block_size": 8})
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["plan"] == {
        "pruner": "sparsegpt",
        "pruner_options": {"block_size": 8, "damping": 0.01},
        "sparsity": "0.29",
        "modules": "all",
        "allocation": "uniform",
        "allocation_options": {},
        "precision": "float32",
        "calibration": "input_ids",
        "calibration_options": {},
    }
    version = metadata.version("lm-eval-pruned")
    assert record["plugin"] == {"distribution": "lm-eval-pruned", "version": version, "module": "harness_ext_pruners"}
    assert record["calibration"] == {"samples": 5, "length": 12, "digest": digest(tiny.token_ids())}
    assert record["environment"]["torch"] == torch.__version__
    assert record["damping_retries"] == 0
    assert record["seconds_pruning"] > 0
    zeros = sum(int((model.get_submodule(name).weight == 0).sum()) for name in record["layers"])
    weights = sum(model.get_submodule(name).weight.numel() for name in record["layers"])
    assert record["achieved_sparsity"] == zeros / weights
    assert record["achieved_sparsity_of_model"] == zeros / sum(parameter.numel() for parameter in model.parameters())
    assert len(record["layers"]) == 14


def test_damping_retries_add_up():
    ids = tiny.token_ids(1, 3)  # fewer tokens than inputs: singular Hessians
    record = prune(tiny.model(), sparsity=0.5, calibration=ids, pruner_options={"damping": 1e-12})
    retries = [entry["damping_retries"] for entry in record["layers"].values()]
    assert record["damping_retries"] == sum(retries) > 0


def test_the_zeros_of_the_record_are_those_of_the_stored_weights():
    """Weights that float16 rounds to zero count."""
    model = tiny.model(dtype=torch.float16)
    for block in model.model.layers:
        block.mlp.up_proj.weight.data[:, :3] = 6e-8  # the smallest number of float16: the smallest change rounds it to zero
    record = prune(model, sparsity=0.05, calibration=tiny.token_ids())
    for name, entry in record["layers"].items():
        assert entry["zeros"] == int((model.get_submodule(name).weight == 0).sum())


CHANGES = {
    "pruner": {"pruner": "wanda"},
    "pruner option": {"pruner_options": {"block_size": 8}},
    "damping": {"pruner_options": {"damping": 0.02}},
    "sparsity": {"sparsity": 0.6},
    "sparsity in the ninth digit": {"sparsity": 0.500000001},
    "pattern": {"sparsity": "2:4"},
    "modules": {"modules": "attention"},
    "calibration seed": {"calibration_options": {"samples": 3, "length": 8, "seed": 1}},
    "calibration samples": {"calibration_options": {"samples": 4, "length": 8}},
    "calibration length": {"calibration_options": {"samples": 3, "length": 9}},
    "temperature": {"calibration_options": {"samples": 3, "length": 8, "temperature": 0.5}},
    "token ids": {"calibration": tiny.token_ids(), "calibration_options": None},
    "dense": {"sparsity": 0},
}


def test_the_fingerprint_changes_with_all_that_decides_the_weights():
    fingerprints = {name: fingerprint(**change) for name, change in CHANGES.items()}
    fingerprints["nothing"] = fingerprint()
    fingerprints["weights"] = fingerprint(tiny.model(seed=1))
    fingerprints["dtype"] = fingerprint(tiny.model(dtype=torch.bfloat16))
    head = tiny.model()
    head.lm_head.weight.data[0, 0] += 1
    fingerprints["head"] = fingerprint(head)
    assert len(set(fingerprints.values())) == len(fingerprints)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"sparsity": "0.5"},
        {"modules": "*"},
        {"pruner": "sparsegpt"},
        {"pruner_options": {"block_size": 128}},
        {"measure_error": True},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_nothing_else(change):
    assert fingerprint(**change) == fingerprint()


def test_the_place_of_a_calibration_file_does_not_matter_but_its_text_does(tmp_path):
    one, other, third = (tmp_path / name for name in ("one.txt", "other.txt", "third.txt"))
    one.write_text("a b c d e f g h i j k l " * 5)
    other.write_text("a b c d e f g h i j k l " * 5)
    third.write_text("l k j i h g f e d c b a " * 5)
    fingerprints = [fingerprint(calibration=str(path), tokenizer=tiny.tokenizer()) for path in (one, other, third)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_calibration_does_not_matter_where_it_is_not_used():
    assert fingerprint(pruner="magnitude") == fingerprint(pruner="magnitude", calibration_options={"seed": 5})
    assert fingerprint(pruner="magnitude") == fingerprint(pruner="magnitude", measure_error=True)


def test_the_seed_of_a_random_pruner_matters():
    assert fingerprint(pruner="random") != fingerprint(pruner="random", pruner_options={"seed": 1})


def test_a_dense_model_has_one_fingerprint_whatever_did_not_prune_it():
    assert fingerprint(sparsity=0) == fingerprint(sparsity=0, pruner="wanda") == fingerprint(sparsity=0, modules="ffn")


def test_the_fingerprint_changes_with_the_version_of_the_plugin(install_plugin, monkeypatch):
    source = (
        "from harness_ext import Pruner, hookimpl\nclass Own(Pruner):\n    name = 'own'\n"
        "    def score(self, weight, statistic):\n        return weight.abs()\n"
        "@hookimpl\ndef register_pruners(register):\n    register(Own)\n"
    )
    install_plugin("own-pruner", source, version="1.0")
    before = fingerprint(pruner="own")
    assert fingerprint(pruner="own") == before
    real = metadata.Distribution.version.fget
    monkeypatch.setattr(
        metadata.Distribution, "version", property(lambda self: "1.1" if self.metadata["Name"] == "own-pruner" else real(self))
    )
    assert fingerprint(pruner="own") != before


def test_the_fingerprint_changes_with_a_helper_of_the_plugin_and_with_what_it_requires(install_plugin, tmp_path, monkeypatch):
    source = (
        "from harness_ext import Pruner, hookimpl\nfrom own_helper import power\nclass Own(Pruner):\n    name = 'own'\n"
        "    requires = ('pluggy',)\n    def score(self, weight, statistic):\n        return weight.abs() ** power()\n"
        "@hookimpl\ndef register_pruners(register):\n    register(Own)\n"
    )
    install_plugin("own-pruner", source)
    helper = tmp_path / "site-packages" / "own_helper.py"
    helper.write_text("def power():\n    return 1\n")
    before = fingerprint(pruner="own")
    assert fingerprint(pruner="own") == before
    helper.write_text("def power():\n    return 2\n")
    assert fingerprint(pruner="own") != before
    helper.write_text("def power():\n    return 1\n")
    assert fingerprint(pruner="own") == before
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "0.0" if name == "pluggy" else real(name))
    assert fingerprint(pruner="own") != before
