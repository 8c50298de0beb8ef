"""``pruned-hf`` as lm-eval builds and uses it, on a tiny checkpoint."""

from __future__ import annotations

import json

import pytest
import tiny
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from harness_ext import PluginError, prune
from harness_ext.host.model import PrunedHFLM, default_batch_size
from harness_ext.plugins import Plugins

SMALL = {"calibration.samples": 3, "calibration.length": 8, "device": "cpu"}
PROMPTS = ["a b c : d e f", "a : b", "x y z"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.checkpoint(tmp_path_factory.mktemp("checkpoint"), dtype=torch.bfloat16)


def build(folder, **arguments):
    return PrunedHFLM(pretrained=folder, **(SMALL | arguments))


def requests(prompts, choices):
    pairs = [(prompt, choice) for prompt in prompts for choice in choices]
    return [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=index) for index, pair in enumerate(pairs)]


class TestDense:
    @pytest.mark.parametrize("arguments", [{}, {"sparsity": 0}, {"sparsity": 0, "pruner": "wanda", "modules": "ffn"}])
    def test_is_hf_bit_for_bit(self, folder, arguments):
        ours, theirs = build(folder, batch_size=2, **arguments), HFLM(pretrained=folder, batch_size=2, device="cpu")
        assert tiny.same(ours.model.state_dict(), theirs.model.state_dict())
        assert ours.model.dtype == torch.bfloat16
        asked = requests(PROMPTS, [" 1", " 2", " a b", " z"])
        assert ours.loglikelihood(asked, disable_tqdm=True) == theirs.loglikelihood(asked, disable_tqdm=True)

    def test_has_a_record_without_layers(self, folder):
        record = build(folder).get_model_info()["pruning"]
        assert (record["achieved_sparsity"], record["layers"], record["plan"]["sparsity"]) == (0, {}, "0")


@pytest.mark.parametrize("pruner", ["random", "magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize("sparsity", [0.5, "2:4"])
def test_the_weights_are_those_of_prune_on_a_model_in_memory(folder, pruner, sparsity):
    lm = build(folder, pruner=pruner, sparsity=sparsity, modules="ffn")
    model = HFLM(pretrained=folder, device="cpu").model
    record = prune(model, pruner=pruner, sparsity=sparsity, modules="ffn", calibration_options={"samples": 3, "length": 8})
    assert tiny.same(lm.model.state_dict(), model.state_dict())
    assert lm.pruning_record["fingerprint"] == record["fingerprint"]
    assert lm.pruning_record["achieved_sparsity"] == 0.5
    assert all(value < 0 for value, _ in lm.loglikelihood(requests(PROMPTS, [" 1"]), disable_tqdm=True))


def test_generates_text(folder):
    lm = build(folder, sparsity=0.5)
    asked = [Instance(request_type="generate_until", doc={}, arguments=("a b c", {"until": ["z"], "max_gen_toks": 4}), idx=0)]
    assert isinstance(lm.generate_until(asked, disable_tqdm=True)[0], str)


def test_the_record_goes_into_the_results_as_json(folder):
    info = build(folder, sparsity=0.5).get_model_info()
    record = json.loads(json.dumps(info["pruning"], allow_nan=False))
    assert record == info["pruning"]
    assert {"plan", "plugin", "calibration", "achieved_sparsity", "damping_retries", "layers", "fingerprint"} <= record.keys()
    assert info.keys() - {"pruning"} == HFLM(pretrained=folder, device="cpu").get_model_info().keys()


def test_the_fingerprint_depends_on_all_that_decides_the_weights_and_not_on_how_they_are_used(folder, tmp_path):
    def fingerprint(folder=folder, **arguments):
        return build(folder, **({"sparsity": 0.5} | arguments)).pruning_record["fingerprint"]

    base = fingerprint()
    for same in ({"batch_size": 7}, {"max_length": 20}, {"logits_cache": False}, {"pruner": "sparsegpt"}, {"sparsity": "0.5"}):
        assert fingerprint(**same) == base, same
    changed = [
        fingerprint(pruner="wanda"),
        fingerprint(**{"pruner.block_size": 8}),
        fingerprint(sparsity=0.6),
        fingerprint(sparsity="2:4"),
        fingerprint(modules="attention"),
        fingerprint(**{"calibration.seed": 1}),
        fingerprint(dtype="float32"),
        fingerprint(tiny.checkpoint(tmp_path, seed=1, dtype=torch.bfloat16)),
    ]
    assert len({base, *changed}) == len(changed) + 1


def test_calibration_files_are_read_with_the_tokenizer_of_the_model(folder, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("a b c d e f g h i j k l m n o p")
    record = build(folder, sparsity=0.5, calibration=str(path)).pruning_record
    assert record["plan"]["calibration"] == "file"
    model = HFLM(pretrained=folder, device="cpu").model
    same = prune(model, sparsity=0.5, calibration=str(path), tokenizer=tiny.tokenizer(), calibration_options={"samples": 3, "length": 8})
    assert record["calibration"] == same["calibration"]


class TestBatchSize:
    @pytest.mark.parametrize(
        ("arguments", "config", "expected"),
        [
            ("", {"batch_size": 1}, 64),  # the integer is what lm-eval passes where nothing was asked for
            ("", None, 64),
            ("", {}, 64),
            ("", {"batch_size": "1"}, 1),  # what a user types is a string
            ("", {"batch_size": "3"}, 3),
            ("", {"batch_size": 3}, 3),
            (",batch_size=5", {"batch_size": 1}, 5),
            (",batch_size=1", {"batch_size": 1}, 1),
            (",batch_size=1", {"device": None}, 1),
        ],
    )
    def test_is_what_was_asked_for_or_suits_the_model(self, folder, arguments, config, expected):
        assert PrunedHFLM.create_from_arg_string(f"pretrained={folder},device=cpu{arguments}", config).batch_size == expected

    def test_may_be_automatic(self, folder):
        assert PrunedHFLM.create_from_arg_string(f"pretrained={folder},device=cpu", {"batch_size": "auto"}).batch_size == "auto"

    @pytest.mark.parametrize(("parameters", "expected"), [(2e6, 64), (125e6, 16), (1.5e9, 16), (7e9, 8)])
    def test_of_larger_models_is_smaller(self, parameters, expected):
        assert default_batch_size(int(parameters)) == expected


class TestSharedPrompts:
    def test_choices_of_one_token_share_a_row(self, folder):
        lm = PrunedHFLM.create_from_arg_string(f"pretrained={folder},device=cpu,sparsity=0.5,pruner=magnitude", {"batch_size": 1})
        asked, rows = requests(PROMPTS, [f" {digit}" for digit in range(4)]), []
        lm.loglikelihood(asked, disable_tqdm=True)  # compares answers with lm-eval's
        lm.model.register_forward_pre_hook(lambda _, args, kwargs: rows.append(len((args or [kwargs["input_ids"]])[0])), with_kwargs=True)
        scores = lm.loglikelihood(asked, disable_tqdm=True)
        assert rows == [3]
        assert len(scores) == 12

    def test_and_score_as_they_do_alone(self, folder):
        asked = requests(PROMPTS, [" 1", " 2", " 3"])
        shared, alone = (
            build(folder, dtype="float32", batch_size=size, logits_cache=cache).loglikelihood(asked, disable_tqdm=True)
            for size, cache in ((64, True), (1, False))
        )
        assert [greedy for _, greedy in shared] == [greedy for _, greedy in alone]
        assert [value for value, _ in shared] == pytest.approx([value for value, _ in alone], rel=1e-4)


class TestNames:
    @pytest.fixture
    def loaded(self, monkeypatch):
        """What would be loaded, without loading it."""
        found = []

        class Stop(Exception):
            pass

        def create(self, pretrained, **_):
            found.append(pretrained)
            raise Stop

        monkeypatch.setattr(HFLM, "__init__", create)
        return found, Stop

    @pytest.mark.parametrize("arguments", [{}, {"pretrained": "lab-m"}])
    def test_lab_is_the_embedded_model_and_the_default(self, loaded, arguments):
        found, stop = loaded
        with pytest.raises(stop):
            PrunedHFLM(**arguments)
        assert found == [str(Plugins().models.get("lab-m")[0])]

    @pytest.mark.parametrize("name", ["gpt2", "EleutherAI/pythia-70m", "a folder"])
    def test_other_names_go_to_transformers_as_they_are(self, loaded, name, tmp_path):
        found, stop = loaded
        name = str(tmp_path) if name == "a folder" else name
        with pytest.raises(stop):
            PrunedHFLM(pretrained=name)
        assert found == [name]

    def test_a_plugin_may_register_a_name(self, folder, install_plugin):
        source = "from harness_ext import hookimpl\n@hookimpl\ndef register_models(register):\n    register('tiny', {!r})\n"
        install_plugin("tiny-model", source.format(folder))
        assert build("tiny").pretrained == folder

    def test_a_registered_folder_that_is_not_there_is_an_error_that_names_the_plugin(self, install_plugin):
        source = "from harness_ext import hookimpl\n@hookimpl\ndef register_models(register):\n    register('gone', '/no/such/folder')\n"
        install_plugin("gone-model", source, version="2.0")
        with pytest.raises(PluginError, match=r"pretrained='gone': gone-model 2\.0 registers it as /no/such/folder"):
            build("gone")


class TestModelInMemory:
    def test_is_pruned_in_place(self):
        model = tiny.model()
        lm = PrunedHFLM(pretrained=model, tokenizer=tiny.tokenizer(), sparsity=0.5, pruner="wanda", **SMALL)
        assert lm.model is model
        assert (model.model.layers[1].mlp.down_proj.weight == 0).sum() == 16 * 12
        assert all(value < 0 for value, _ in lm.loglikelihood(requests(PROMPTS, [" 1"]), disable_tqdm=True))
        json.dumps(lm.get_model_info()["pruning"])

    def test_goes_through_lm_evals_constructor(self):
        lm = PrunedHFLM.create_from_arg_obj({"pretrained": tiny.model(), "tokenizer": tiny.tokenizer(), "sparsity": 0}, {"batch_size": 1})
        assert lm.batch_size == 64


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
def test_every_architecture_is_loaded_and_pruned(name, tmp_path):
    lm = build(tiny.checkpoint(tmp_path, name), sparsity=0.5)
    assert lm.pruning_record["achieved_sparsity"] == 0.5
    assert all(value < 0 for value, _ in lm.loglikelihood(requests(PROMPTS, [" 1"]), disable_tqdm=True))
