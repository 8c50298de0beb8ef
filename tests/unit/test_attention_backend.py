"""cuDNN is left out of attention on a CUDA device, and only within the context."""

from __future__ import annotations

import pytest
import torch

from harness_ext.host.attention import without_cudnn


@pytest.fixture(autouse=True)
def as_before():
    before = torch.backends.cuda.cudnn_sdp_enabled()
    yield
    torch.backends.cuda.enable_cudnn_sdp(before)


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_setting_is_that_of_the_caller_afterwards(device: str, allowed: bool) -> None:
    torch.backends.cuda.enable_cudnn_sdp(allowed)
    with without_cudnn(torch.device(device)):
        assert torch.backends.cuda.cudnn_sdp_enabled() == (allowed and device == "cpu")
    assert torch.backends.cuda.cudnn_sdp_enabled() == allowed


def test_an_error_within_puts_it_back() -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    with pytest.raises(ValueError, match="stop"), without_cudnn(torch.device("cuda")):
        raise ValueError("stop")
    assert torch.backends.cuda.cudnn_sdp_enabled()
