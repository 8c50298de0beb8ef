import torch
from harness_ext_fisher import Fisher
from transformers import GPT2Config, GPT2LMHeadModel

import harness_ext
from harness_ext.testing import PrunerContract


class TestFisher(PrunerContract):
    pruner = "fisher"


def test_a_weight_without_influence_on_the_loss_goes_first():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2, n_positions=16)).eval()
    inner = model.transformer.h[0].mlp
    with torch.no_grad():
        inner.c_proj.weight[:8] = 0  # of these eight channels nothing comes out
        inner.c_fc.weight[:, :8] *= 1000
    ids = torch.arange(32).view(4, 8)
    harness_ext.prune(model, pruner=Fisher(), sparsity=0.125, calibration=ids)
    assert not inner.c_fc.weight[:, :8].any()
