"""Where the weights are, and their digest."""

from __future__ import annotations

import pytest
import tiny
import torch
from refusals import raises_line

from harness_ext import NumericalError
from harness_ext.engine.placement import Placement


def digest(model):
    return Placement(model).digest()


class TestDigest:
    def test_sees_every_bit(self):
        model = tiny.model(dtype=torch.bfloat16)
        digests = {digest(model)}
        model.model.norm.weight.data[3] *= 1.01
        digests.add(digest(model))
        model.model.norm.weight.data[3] = 0.0
        digests.add(digest(model))
        model.model.norm.weight.data[3] = -0.0
        digests.add(digest(model))
        assert len(digests) == 4

    def test_is_the_same_for_the_same_weights(self):
        assert digest(tiny.model("opt")) == digest(tiny.model("opt"))

    def test_sees_the_dtype_and_the_shape_where_the_bytes_are_the_same(self):
        zeros = [torch.zeros(2, 3, dtype=torch.bfloat16), torch.zeros(2, 3, dtype=torch.float16), torch.zeros(3, 2, dtype=torch.float16)]
        models = [torch.nn.ParameterDict({"weight": weight}) for weight in zeros]
        assert len(set(map(digest, models))) == 3

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_refuses_weights_that_are_not_finite_and_names_them(self, value):
        model = tiny.model()
        model.model.layers[1].mlp.up_proj.weight.data[2, 3] = value
        with raises_line(NumericalError, "model.layers.1.mlp.up_proj.weight", "NaN or infinite"):
            digest(model)
