"""Where the calibration tokens come from."""

from __future__ import annotations

import itertools
import json

import datasets
import pytest
import tiny
import torch
import transformers
from harness_ext_calibrations.file import File
from harness_ext_calibrations.hub import Hub
from harness_ext_calibrations.self_generated import SelfGenerated
from refusals import raises_line
from torch import nn
from transformers import GenerationConfig

from harness_ext import BadOptionError, Calibration, CalibrationError, NumericalError
from harness_ext.method.calibration import digest

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def model():
    return tiny.model()


@pytest.fixture(scope="module")
def tokenizer():
    return tiny.tokenizer()


def is_window(row, tokens):
    return any(tokens[start : start + len(row)] == row for start in range(len(tokens) - len(row) + 1))


class TestSelfGenerated:
    @pytest.mark.parametrize("name", tiny.ARCHITECTURES)
    def test_gives_samples_of_the_length(self, name):
        ids = SelfGenerated(samples=3, length=7).input_ids(tiny.model(name), None)
        assert ids.shape == (3, 7)
        assert ids.dtype == torch.int64
        assert 0 <= ids.min() <= ids.max() < tiny.VOCABULARY

    def test_more_samples_than_a_batch(self, model):
        ids = SelfGenerated(samples=70, length=4).input_ids(model, None)
        assert ids.shape == (70, 4)
        assert len(ids.unique(dim=0)) > 60

    def test_by_default_is_as_long_as_the_model_can_take(self, model):
        assert SelfGenerated(samples=2).input_ids(model, None).shape == (2, tiny.LONGEST)

    def test_is_the_same_for_a_seed_and_another_for_another(self, model):
        digests = [digest(SelfGenerated(samples=4, length=9, seed=seed).input_ids(model, None)) for seed in (0, 0, 1)]
        assert digests[0] == digests[1] != digests[2]

    def test_leaves_the_global_generator_alone_and_does_not_depend_on_it(self, model):
        torch.manual_seed(5)
        state, one = torch.get_rng_state(), SelfGenerated(samples=4, length=9).input_ids(model, None)
        assert torch.get_rng_state().equal(state)
        torch.manual_seed(6)
        assert SelfGenerated(samples=4, length=9).input_ids(model, None).equal(one)

    def test_follows_the_models_distribution(self, model):
        """The second token of 4,000 samples, against the probabilities of a plain forward pass; the end is never drawn."""
        ids = SelfGenerated(samples=4000, length=2, temperature=0.8).input_ids(model, None)
        assert not ids[:, 0].any()
        with torch.no_grad():
            logits = model(input_ids=torch.zeros(1, 1, dtype=torch.int64)).logits[0, -1] / 0.8
        logits[0] = float("-inf")
        expected = 4000 * logits.softmax(0)
        counts = ids[:, 1].bincount(minlength=tiny.VOCABULARY)
        assert counts[0] == 0
        assert ((counts - expected).abs() < 5 * (expected + 1).sqrt()).all()

    def test_at_a_low_temperature_is_greedy(self, model):
        ids = SelfGenerated(samples=2, length=8, temperature=1e-4).input_ids(model, None)
        row = [0]
        for _ in range(7):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([row])).logits[0, -1]
            logits[0] = float("-inf")
            row.append(int(logits.argmax()))
        assert ids.tolist() == [row, row]

    @pytest.mark.parametrize("end", [0, [0, 5]], ids=str)
    def test_goes_on_where_the_model_would_end(self, end):
        model = tiny.model()
        model.config.eos_token_id = model.generation_config.eos_token_id = end
        model.lm_head = nn.Linear(tiny.WIDTH, tiny.VOCABULARY)
        model.lm_head.bias.data[0] = 100
        ids = SelfGenerated(samples=3, length=9).input_ids(model, None)
        assert ids.shape == (3, 9)
        assert not (ids[:, 1:] == 0).any()

    @pytest.mark.parametrize(("bos", "eos", "first"), [(3, 0, 3), (None, 4, 4), (None, [4, 5], None), (None, None, None)])
    def test_begins_with_the_first_token_of_the_model_or_any(self, bos, eos, first):
        model = tiny.model(bos_token_id=bos, eos_token_id=eos)
        ids = SelfGenerated(samples=40, length=3).input_ids(model, None)
        assert ids.shape == (40, 3)
        assert (ids[:, 0] == first).all() if first is not None else len(ids[:, 0].unique()) > 5
        assert ids.equal(SelfGenerated(samples=40, length=3).input_ids(model, None))

    def test_does_not_care_for_the_checkpoints_generation_settings(self, model):
        other = tiny.model()
        own = GenerationConfig(
            max_new_tokens=2, min_new_tokens=1, repetition_penalty=9.0, top_k=1, num_beams=3, num_return_sequences=2, eos_token_id=0,
            suppress_tokens=[7, 8, 9], forced_eos_token_id=3, temperature=0.1, no_repeat_ngram_size=1, return_dict_in_generate=True,
        )  # fmt: skip
        other.generation_config = own
        before = own.to_dict()
        assert SelfGenerated(samples=4, length=9).input_ids(other, None).equal(SelfGenerated(samples=4, length=9).input_ids(model, None))
        assert other.generation_config is own
        assert own.to_dict() == before

    def test_a_model_without_finite_output_is_an_error(self):
        model = tiny.model()
        model.lm_head.weight.data *= float("nan")
        own = model.generation_config
        with raises_line(NumericalError, "NaN or infinite"):
            SelfGenerated(samples=2, length=5).input_ids(model, None)
        assert model.generation_config is own

    @pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
    def test_a_temperature_of_nothing_is_refused(self, temperature):
        with raises_line(BadOptionError, "calibration.temperature"):
            SelfGenerated(temperature=temperature)


class TestFile:
    def write(self, folder, name, content):
        path = folder / name
        path.write_bytes(content) if isinstance(content, bytes) else path.write_text(content, encoding="utf-8")
        return File(path=str(path), samples=6, length=8)

    def test_a_text_is_cut_at_random_places(self, tmp_path, model, tokenizer):
        text = " ".join(LETTERS * 4)
        source = self.write(tmp_path, "a.txt", text)
        ids = source.input_ids(model, tokenizer)
        assert ids.shape == (6, 8)
        assert ids.dtype == torch.int64
        tokens = tokenizer(text)["input_ids"]
        assert all(is_window(row, tokens) for row in ids.tolist())
        assert len(ids.unique(dim=0)) > 1

    def test_a_text_of_just_one_sequence_is_enough(self, tmp_path, model, tokenizer):
        ids = self.write(tmp_path, "a.txt", "a b c d e f g h").input_ids(model, tokenizer)
        assert ids.tolist() == [tokenizer("a b c d e f g h")["input_ids"]] * 6

    def test_a_text_of_one_token_more_has_two_sequences(self, tmp_path, model, tokenizer):
        source = File(path=self.write(tmp_path, "a.txt", "a b c d e f g h i").path, samples=30, length=8)
        tokens = tokenizer("a b c d e f g h i")["input_ids"]
        assert {tuple(row) for row in source.input_ids(model, tokenizer).tolist()} == {tuple(tokens[:8]), tuple(tokens[1:])}

    def test_the_documents_of_a_jsonl_file_are_joined(self, tmp_path, model, tokenizer):
        rows = ["a b c", "d e f g", "", "h i j k l m n o p"]
        source = self.write(tmp_path, "a.jsonl", "\n".join(json.dumps({"text": row, "id": 1}) for row in rows) + "\n\n")
        tokens = tokenizer(" ".join(rows))["input_ids"]
        assert list(source.texts()) == rows
        assert all(is_window(row, tokens) for row in source.input_ids(model, tokenizer).tolist())

    def test_another_field_of_a_jsonl_file(self, tmp_path):
        path = tmp_path / "a.jsonl"
        path.write_text('{"body": "a b"}\n')
        assert list(File(path=str(path), field="body").texts()) == ["a b"]

    def test_special_tokens_are_not_added(self, tmp_path, model, tokenizer):
        assert (self.write(tmp_path, "a.txt", "a b c d e f g h i j").input_ids(model, tokenizer) > 1).all()

    def test_is_the_same_for_a_seed_and_another_for_another(self, tmp_path, model, tokenizer):
        path = self.write(tmp_path, "a.txt", " ".join(LETTERS * 4)).path
        digests = [digest(File(path=path, samples=4, length=9, seed=seed).input_ids(model, tokenizer)) for seed in (0, 0, 1)]
        assert digests[0] == digests[1] != digests[2]

    def test_leaves_the_global_generator_alone(self, tmp_path, model, tokenizer):
        state = torch.get_rng_state()
        self.write(tmp_path, "a.txt", " ".join(LETTERS)).input_ids(model, tokenizer)
        assert torch.get_rng_state().equal(state)

    @pytest.mark.parametrize(
        ("name", "content", "parts"),
        [
            ("a.txt", "", ["calibration.path=", "a.txt", "empty"]),
            ("a.jsonl", "\n\n", ["calibration.path=", "a.jsonl", "empty"]),
            ("a.txt", b"caf\xe9", ["a.txt", "UTF-8", "byte 3"]),
            ("a.jsonl", b'{"text": "caf\xe9"}', ["a.jsonl", "UTF-8"]),
            ("a.jsonl", '{"text": "a"\n', ["a.jsonl:1:", "JSON"]),
            ("a.jsonl", '\n{"body": "a", "id": 3}\n', ["a.jsonl:2:", "'text'", "body, id"]),
            ("a.jsonl", '{"text": 5}\n', ["a.jsonl:1:", "'text'"]),
            ("a.jsonl", '["a"]\n', ["a.jsonl:1:", "'text'", "list"]),
        ],
    )
    def test_a_file_that_cannot_be_used_is_found_out_at_the_check(self, tmp_path, name, content, parts):
        with raises_line((CalibrationError, BadOptionError), *parts):
            self.write(tmp_path, name, content).check()

    @pytest.mark.parametrize("path", ["", "missing.txt", "."])
    def test_a_missing_file_is_found_out_at_the_check(self, path):
        with raises_line(BadOptionError, f"calibration.path={path!r}" if path else "calibration.path="):
            File(path=path).check()

    def test_a_bad_line_further_on_is_an_error_with_its_number(self, tmp_path, model, tokenizer):
        source = self.write(tmp_path, "a.jsonl", '{"text": "a b"}\n{"text": "c d"}\nnot json\n')
        source.check()
        with raises_line(CalibrationError, "a.jsonl:3:", "JSON"):
            source.input_ids(model, tokenizer)

    def test_too_few_tokens_are_an_error(self, tmp_path, model, tokenizer):
        with raises_line(CalibrationError, "'file'", "3", "8", "calibration.length"):
            self.write(tmp_path, "a.txt", "a b c").input_ids(model, tokenizer)

    def test_text_needs_a_tokenizer(self, tmp_path, model):
        with raises_line(CalibrationError, "'file'", "tokenizer="):
            self.write(tmp_path, "a.txt", "a b c").input_ids(model, None)


class TestHub:
    """Nothing here goes over a network: ``datasets.load_dataset`` is replaced."""

    @pytest.fixture
    def c4(self, monkeypatch):
        calls, read = [], []

        def rows():
            for index in itertools.count():
                read.append(index)
                yield {"text": " ".join(LETTERS), "timestamp": "2019-04-25T12:57:54Z", "url": f"https://example.org/{index}"}

        monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: calls.append((args, kwargs)) or rows())
        return calls, read

    def test_streams_the_first_documents_and_no_more_than_it_needs(self, c4, model, tokenizer):
        calls, read = c4
        source = Hub(dataset="allenai/c4", config="en", revision="abc", samples=3, length=10)
        source.check()
        assert not calls
        ids = source.input_ids(model, tokenizer)
        assert calls == [(("allenai/c4", "en"), {"split": "train", "revision": "abc", "streaming": True})]
        assert ids.shape == (3, 10)
        assert all(is_window(row, tokenizer(" ".join(LETTERS * 2))["input_ids"]) for row in ids.tolist())
        assert len(read) == 5  # 4 x 3 x 10 tokens of 26 each

    def test_is_the_same_for_a_seed_and_another_for_another(self, c4, model, tokenizer):
        digests = [digest(Hub(dataset="x", samples=4, length=9, seed=s).input_ids(model, tokenizer)) for s in (0, 0, 1)]
        assert digests[0] == digests[1] != digests[2]

    def test_a_field_that_is_not_there_is_an_error_that_names_those_that_are(self, c4, model, tokenizer):
        with raises_line(CalibrationError, "calibration.field='body'", "allenai/c4", "text, timestamp, url"):
            Hub(dataset="allenai/c4", field="body").input_ids(model, tokenizer)

    @pytest.mark.parametrize("kind", [ConnectionError, ValueError])
    def test_a_failure_of_the_network_is_one_line(self, monkeypatch, model, tokenizer, kind):
        def fail(*_, **__):
            raise kind("cannot\nreach\n  the hub")

        monkeypatch.setattr(datasets, "load_dataset", fail)
        with raises_line(CalibrationError, "'allenai/c4'", f"{kind.__name__}: cannot reach the hub"):
            Hub(dataset="allenai/c4").input_ids(model, tokenizer)

    def test_a_failure_on_the_way_is_one_line_as_well(self, monkeypatch, model, tokenizer):
        def rows():
            yield {"text": "a b"}
            raise TimeoutError("timed\nout")

        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: rows())
        with raises_line(CalibrationError, "'allenai/c4'", "TimeoutError: timed out"):
            Hub(dataset="allenai/c4").input_ids(model, tokenizer)

    def test_wants_a_name(self):
        with raises_line(BadOptionError, "calibration=hub", "calibration.dataset="):
            Hub().check()


@pytest.mark.parametrize("source", [SelfGenerated, File, Hub])
class TestEverySource:
    def test_options_out_of_range_are_refused(self, source):
        for option, value in [("samples", 0), ("samples", -3), ("length", 1), ("length", 0), ("seed", -1), ("seed", 2**32)]:
            with raises_line(BadOptionError, f"calibration.{option}={value}"):
                source(**{option: value})

    def test_a_length_above_the_models_limit_is_refused(self, source, model, tokenizer):
        with raises_line(BadOptionError, "calibration.length=33", "32"):
            source(length=33).input_ids(model, tokenizer)


class TestLength:
    class Own(Calibration):
        name = "own"

    @pytest.mark.parametrize(("limit", "given", "length"), [(32, None, 32), (32, 8, 8), (100_000, None, 512), (100_000, 5000, 5000)])
    def test_is_what_is_asked_for_or_what_the_model_takes(self, limit, given, length):
        assert self.Own(length=given).length_for(tiny.model(max_position_embeddings=limit)) == length

    def test_is_512_where_the_model_sets_no_limit(self):
        bloom = transformers.BloomConfig(hidden_size=8, n_layer=1, n_head=2, vocab_size=tiny.VOCABULARY)  # has no position embeddings
        other = transformers.BloomForCausalLM(bloom)
        assert self.Own().length_for(other) == 512
        assert self.Own(length=5000).length_for(other) == 5000

    def test_gpt2_calls_it_otherwise(self):
        assert self.Own().length_for(tiny.model("gpt2")) == tiny.LONGEST


class TestDigest:
    def test_depends_on_ids_and_shape(self):
        ids = tiny.token_ids(4, 6)
        other = ids.clone()
        other[3, 5] += 1
        assert len({digest(ids), digest(other), digest(ids.view(6, 4)), digest(ids[:3])}) == 4
        assert digest(ids) == digest(ids.clone()) == digest(ids.T.contiguous().T)
