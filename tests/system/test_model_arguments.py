"""Arguments of the model are checked before anything is loaded, by pruned-hf and by sweeps, also in a dry run."""

from __future__ import annotations

import pytest
import tiny
from sweeps import prepare

from harness_ext import BadOptionError, PrunedHFLM
from harness_ext.sweep.dense import DenseModel

WRONG = {
    "max_length": 0,
    "prefix_token_id": "x",
    "share_prompts": "maybe",
    "softmax_dtype": "float99",
    "mixed_precision_dtype": "bfloat17",
    "add_bos_token": "perhaps",
    "parallelize": "no",
    "logits_cache": "off",
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("sparsity", [0, 0.5])
def test_pruned_hf_names_what_is_wrong(name, sparsity, tmp_path, monkeypatch):
    monkeypatch.setattr(PrunedHFLM, "_create_model", lambda *_, **__: pytest.fail("loads weights"))
    folder = tiny.checkpoint(tmp_path)
    with pytest.raises(BadOptionError, match=f"{name}="):
        PrunedHFLM(folder, sparsity=sparsity, **{name: WRONG[name]})


@pytest.mark.parametrize("name", WRONG)
def test_a_sweep_names_it_before_its_first_trial(name):
    with pytest.raises(BadOptionError, match=f"{name}="):
        prepare(model_args={name: WRONG[name]})


@pytest.mark.parametrize("share", [True, False])
def test_a_sweep_may_run_each_choice_by_itself(share):
    prepared = prepare(model_args={"share_prompts": share})
    model = DenseModel(prepared.sweep, "lab-xs")
    assert (model.lm._shared_prompts is not None) == share
