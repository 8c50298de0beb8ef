"""Perplexity against transformers' own loss, window by window."""

from __future__ import annotations

import math

import pytest
import tiny
import torch
from refusals import raises_line

from harness_ext import BadOptionError, CalibrationError, NumericalError
from harness_ext.engine.perplexity import Protocol, ShortTextError, perplexity, windows

TEXT = " ".join("the quick brown fox jumps over the lazy dog 0123456789".replace(" ", "") * 3)  # 135 tokens


def of_transformers(model: torch.nn.Module, cut: torch.Tensor) -> list[float]:
    """The loss that transformers computes with ``labels=``, in float64."""
    with torch.inference_mode():
        return [float(model.double()(input_ids=window[None], labels=window[None]).loss) for window in cut]


@pytest.mark.parametrize("name", tiny.ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_is_exp_of_the_mean_of_the_losses_of_transformers(name: str, batch_size: int) -> None:
    cut, dropped = windows(TEXT, tiny.tokenizer(), 16, "text")
    found = perplexity(tiny.model(name), cut, dropped=dropped, batch_size=batch_size)
    losses = of_transformers(tiny.model(name), cut)
    assert found.losses == pytest.approx(losses, rel=1e-5)
    mean = sum(losses) / len(losses)
    assert found.value == pytest.approx(math.exp(mean), rel=1e-5)
    spread = math.sqrt(sum((loss - mean) ** 2 for loss in losses) / (len(losses) - 1) / len(losses))
    assert found.stderr == pytest.approx(math.exp(mean) * spread, rel=1e-3)
    described = found.describe()
    assert (described["windows"], described["window"], described["scored_tokens"]) == (len(losses), 16, 15 * len(losses))


def test_long_windows_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    cut, _ = windows(TEXT, tiny.tokenizer(), 32, "text")
    whole = perplexity(tiny.model(), cut)
    monkeypatch.setattr("harness_ext.engine.perplexity.ROWS", 5)
    assert perplexity(tiny.model(), cut).losses == pytest.approx(whole.losses, rel=1e-12)


class TestWindows:
    def test_do_not_overlap_and_leave_out_the_end(self) -> None:
        ids = tiny.tokenizer()(TEXT)["input_ids"]
        cut, dropped = windows(TEXT, tiny.tokenizer(), 16, "text")
        assert cut.flatten().tolist() == ids[: len(ids) // 16 * 16]
        assert dropped == len(ids) % 16

    def test_may_each_begin_with_bos(self) -> None:
        tokenizer = tiny.tokenizer()
        ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
        cut, dropped = windows(TEXT, tokenizer, 16, "window")
        assert set(cut[:, 0].tolist()) == {tokenizer.bos_token_id}
        assert cut[:, 1:].flatten().tolist() == ids[: len(ids) // 15 * 15]
        assert dropped == len(ids) % 15

    def test_have_one_bos_before_the_text_if_the_tokenizer_puts_it_there(self) -> None:
        from tokenizers.processors import TemplateProcessing

        tokenizer = tiny.tokenizer()
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<end> $A", special_tokens=[("<end>", 0)])
        of_text, _ = windows(TEXT, tokenizer, 16, "text")
        without, _ = windows(TEXT, tokenizer, 16, "none")
        assert of_text.flatten()[: without.numel()].tolist() == [0, *without.flatten().tolist()][: without.numel()]
        assert (of_text[1:, 0] != 0).all()

    def test_may_be_limited(self) -> None:
        cut, dropped = windows(TEXT, tiny.tokenizer(), 16, "text", most=2)
        assert len(cut) == 2
        assert dropped == len(tiny.tokenizer()(TEXT)["input_ids"]) - 32

    @pytest.mark.parametrize("bos", ["text", "window", "none"])
    def test_a_text_shorter_than_one_is_refused(self, bos: str) -> None:
        with raises_line(ShortTextError, "2 tokens", "fewer than one window"):
            windows("a b", tiny.tokenizer(), 16, bos)

    def test_bos_wants_a_tokenizer_with_one(self) -> None:
        tokenizer = tiny.tokenizer()
        tokenizer.bos_token = None
        with raises_line(BadOptionError, "bos='window'", "no BOS token"):
            windows(TEXT, tokenizer, 16, "window")


class TestProtocol:
    def test_takes_what_the_model_takes_at_most_2048(self) -> None:
        assert Protocol().window_for(tiny.model()) == tiny.LONGEST
        assert Protocol().window_for(tiny.model(max_position_embeddings=4096)) == 2048
        assert Protocol(window=8).window_for(tiny.model()) == 8

    @pytest.mark.parametrize(
        ("wrong", "says"),
        [
            ({"window": 1}, "window=1"),
            ({"window": True}, "window=True"),
            ({"bos": "txt"}, "Did you mean 'text'"),
            ({"bos": None}, "None"),
        ],
    )
    def test_refuses_mistakes(self, wrong: dict[str, object], says: str) -> None:
        with raises_line(BadOptionError, says):
            Protocol(**wrong)  # type: ignore[arg-type]

    def test_refuses_a_window_that_the_model_cannot_take(self) -> None:
        with raises_line(BadOptionError, "window=33", "at most 32"):
            Protocol(window=33).window_for(tiny.model())


def test_a_model_with_nan_is_refused() -> None:
    model = tiny.model()
    with torch.no_grad():
        model.lm_head.weight[3] = math.nan
    with raises_line(NumericalError, "NaN or infinite"):
        perplexity(model, tiny.token_ids())


def test_tokens_that_the_model_does_not_have_are_refused() -> None:
    with raises_line(CalibrationError, "vocabulary"):
        perplexity(tiny.model(), tiny.token_ids() + tiny.VOCABULARY)
