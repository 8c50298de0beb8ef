"""The training of the embedded models: the text, the tokenizer, and runs that are cut off and go on."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import lab_curves
import lab_mixture
import lab_tokenizer
import train_lab
from lab_mixture import KINDS, Mixture

from harness_ext.tasks import icl, lookup
from harness_ext.tasks.functions import split_of
from harness_ext.tasks.people import population

SCRIPTS = Path(__file__).parents[2] / "scripts"
PEOPLE = population(0)
END = "<|end|>"


@pytest.fixture(scope="module")
def tokenizer():
    return lab_tokenizer.build(PEOPLE)


@pytest.fixture(scope="module")
def mixture(tokenizer):
    return Mixture(tokenizer, PEOPLE, tokens=1200, seed=0)


def texts(mixture, kind, steps, **options):
    """Every row of the batches of some steps, as text."""
    for step in range(steps):
        yield from mixture.tokenizer.batch_decode(mixture.batch(kind, step, 1, **options).ids)


def same(a, b):
    return a.ids.equal(b.ids) and a.answers.equal(b.answers)


# --- the text


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_depends_on_seed_step_and_index_alone(kind, mixture, tokenizer):
    first = mixture.batch(kind, 3, 1)
    np.random.seed(1)
    torch.manual_seed(1)
    random.seed(1)
    mixture.batch(kind, 9, 0)
    assert same(mixture.batch(kind, 3, 1), first)
    assert same(Mixture(tokenizer, PEOPLE, tokens=1200, seed=0).batch(kind, 3, 1), first)
    others = [mixture.batch(kind, 4, 1), mixture.batch(kind, 3, 2), Mixture(tokenizer, PEOPLE, tokens=1200, seed=1).batch(kind, 3, 1)]
    assert not any(same(other, first) for other in others)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_has_about_the_tokens_asked_for_and_no_more_than_the_model_can_read(kind, mixture):
    for step in range(8):
        ids = mixture.batch(kind, step, 0).ids
        assert 0.5 * 1200 <= ids.numel() <= 1.1 * 1200
        assert ids.shape[1] <= 384 + 1


@pytest.mark.parametrize("kind", ["icl", "facts", "passages"])
def test_answers_are_the_tokens_after_output_and_answer(kind, mixture, tokenizer):
    marked = 0
    for step in range(4):
        batch = mixture.batch(kind, step, 0)
        for ids, answers in zip(batch.ids.tolist(), batch.answers.tolist(), strict=True):
            pieces = [tokenizer.decode([token]) for token in ids]
            starts = {match.end() for match in re.finditer(r"\n(Output|Answer):", "".join(pieces))}
            ends = np.cumsum([0, *map(len, pieces)])[:-1]
            assert answers == [int(place) in starts for place in ends]
            marked += sum(answers)
    assert marked > 20


def test_the_copied_half_of_a_sequence_is_the_answer(mixture):
    batch = mixture.batch("copy", 0, 2)
    ids = batch.ids[:, -128:]
    assert ids[:, :64].equal(ids[:, 64:])
    assert not batch.answers[:, :-64].any()
    assert batch.answers[:, -60:].all()


def test_every_key_is_asked_for_after_all_of_them_and_only_those_values_are_answers(mixture, tokenizer):
    asked = 0
    for step in range(12):
        batch = mixture.batch("lookup", step, 0)
        for ids, answers in zip(batch.ids, batch.answers, strict=True):
            pairs = re.findall(r"Key: (\d, \d, \d)\nValue: (\w+)", tokenizer.decode(ids))
            shown, questions = dict(pairs[: len(pairs) // 2]), pairs[len(pairs) // 2 :]
            assert len(shown) == len(questions)
            assert all(shown[key] == value for key, value in questions)
            assert tokenizer.batch_decode(ids[answers].unsqueeze(1)) == [f" {value}" for _, value in questions]
            asked += len(questions)
    assert asked > 500


def test_pairs_are_looked_up_in_the_format_of_the_tasks(mixture):
    pair = "Key: [0-9], [0-9], [0-9]\nValue: [a-z]+"
    assert all(re.fullmatch(rf"(<\|end\|>)?{pair}(\n\n{pair})*", text) for text in texts(mixture, "lookup", 4))
    assert re.fullmatch(rf"({pair}\n\n){{32}}Key: [0-9], [0-9], [0-9]\nValue:", lookup.item(lookup.Options(), 0)["prompt"])


def test_every_answer_is_one_token(tokenizer):
    values = [value for attribute in PEOPLE.attributes for value in attribute.values]
    for answer in [*map(str, range(10)), *values, *lookup.VALUES]:
        assert len(tokenizer(f" {answer}")["input_ids"]) == 1


def test_functions_of_the_test_split_are_never_trained_on(mixture, drawn, monkeypatch):
    splits, used = [], []
    original = lab_mixture.draw_labelled_points

    def spy(*arguments, split, **options):
        found = original(*arguments, split=split, **options)
        splits.append(split)
        used.append(drawn[-1])
        return found

    monkeypatch.setattr(lab_mixture, "draw_labelled_points", spy)
    for step, dimensions in ((step, dimensions) for step in range(6) for dimensions in (1, 2, 3, 4)):
        mixture.batch("icl", step, 0, dimensions=dimensions)
    assert len(used) > 50
    assert set(splits) == {"train"}
    assert {split_of(function) for function in used} == {"train"}
    assert {split_of(function) for function in drawn} == {"train", "test"}


def test_functions_are_trained_on_in_the_format_of_the_tasks(mixture):
    pair = r"Input: \d, \d, \d, \d\nOutput: [0-3]"
    for text in texts(mixture, "icl", 8):
        assert re.fullmatch(rf"(<\|end\|>)?({pair}\n\n){{32}}{pair}", text)
    prompt = icl.item("tree", icl.Options(), 0)["prompt"]
    assert re.fullmatch(rf"({pair}\n\n){{32}}Input: \d, \d, \d, \d\nOutput:", prompt)


def test_memorised_facts_are_stated_truly(mixture):
    truth = {
        attribute.question.format(person): PEOPLE.answer(i, k)
        for i, person in enumerate(PEOPLE.memorised)
        for k, attribute in enumerate(PEOPLE.attributes)
    }
    stated = [found for text in texts(mixture, "facts", 12) for found in re.findall(r"Question: (.*)\nAnswer: (\w+)\n\n", text)]
    assert len({question for question, _ in stated}) > 200
    assert all(truth[question] == answer for question, answer in stated)


def test_passages_state_the_answers_that_they_ask_for(mixture):
    asked = 0
    for text in texts(mixture, "passages", 12):
        for passage, questions in re.findall(r"Context: (.*)((?:\nQuestion: .*\nAnswer: \w+)+)\n\n", text):
            for question, answer in re.findall(r"Question: (.*)\nAnswer: (\w+)", questions):
                (attribute,) = [a for a in PEOPLE.attributes if re.fullmatch(re.escape(a.question).replace(r"\{\}", ".*"), question)]
                name = re.fullmatch(re.escape(attribute.question).replace(r"\{\}", "(.*)"), question)[1]
                assert attribute.statement.format(name, answer) in passage
                asked += 1
    assert asked > 100


def test_no_fact_and_no_passage_is_about_people_kept_unseen(mixture):
    firsts, lasts = ({getattr(person, part) for person in PEOPLE.memorised} for part in ("first", "last"))
    named = {
        (first, last)
        for kind in ("facts", "passages") for text in texts(mixture, kind, 20) for first, last in re.findall(r"(?=\b(\w+) (\w+)\b)", text)
        if first in firsts and last in lasts
    }  # fmt: skip
    assert len(named & set(PEOPLE.memorised)) > 500
    assert len(named & set(PEOPLE.met)) > 500
    assert not named & set(PEOPLE.unseen)


# --- the tokenizer


def test_any_text_comes_back_from_the_tokenizer(tokenizer):
    rng = random.Random(0)
    alphabet = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    samples = ["".join(rng.choices(alphabet, k=40)) for _ in range(50)]
    samples += ["".join(rng.choices("Input: \n,1a.", k=40)) for _ in range(50)]
    samples += ["", " ", "\n", "\n\n\n", " \t\r\n ", "\0", "é e\u0301 ﬁ", "日本語 العربية 🧑‍🔬", "  two  spaces ", "don't , stop .", END]
    samples += ["Input:\nInput: 12,3 ,4", icl.item("nn", icl.Options(high=99), 0)["prompt"]]
    for text in samples:
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_every_digit_is_a_token_of_its_own(tokenizer):
    for text, count in (("7", 1), (" 7", 1), (", 7", 1), ("123", 3), (" 407", 3), ("Input: 3, 70, 0, 9\nOutput: 1", 1 + 5 + 1 + 1)):
        ids = tokenizer(text)["input_ids"]
        assert len(ids) == count
        assert all(len(re.findall(r"\d", tokenizer.decode([token]))) <= 1 for token in ids)


def test_every_name_and_value_is_one_token_and_they_are_all_different(tokenizer):
    found = [tokenizer(f" {word}")["input_ids"] for word in PEOPLE.words()]
    assert {len(ids) for ids in found} == {1}
    assert len({ids[0] for ids in found}) == len(found)


def log_of(out):
    """The log of a run without the times."""
    lines = (out / "log.jsonl").read_text().splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A whole smoke run: its folder and its log."""
    out = tmp_path_factory.mktemp("smoke")
    command = [sys.executable, str(SCRIPTS / "train_lab.py"), "--out", str(out), "--smoke", "--save-every", "100"]
    process = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stderr
    return out, log_of(out)


INTERRUPTED = """
import os, shutil, signal, sys, time
from pathlib import Path
import train_lab

folder = Path(sys.argv[1])

def fork(function, args, nprocs):
    # Workers are copies of this process: new ones would import everything again.
    workers = []
    for rank in range(nprocs):
        workers.append(os.fork())
        if not workers[-1]:
            function(rank, *args)
            os._exit(0)
    assert all(os.waitpid(worker, 0)[1] == 0 for worker in workers)

train_lab.mp.spawn = fork

def start(name, **options):
    if child := os.fork():
        return child
    os.setsid()
    train_lab.main(folder / name, save_every=3, smoke=True, **options)
    os._exit(0)

def finish(name, **options):
    assert os.waitpid(start(name, **options), 0)[1] == 0

def kill(name, child, lines):
    log, deadline = folder / name / "log.jsonl", time.monotonic() + 60
    while time.monotonic() < deadline and not (log.exists() and log.read_text().count("\\n") >= lines):
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    shutil.copy(log, folder / name / "killed.jsonl")

kill("one", start("one"), 5)  # some steps more than the checkpoint knows of
with (folder / "one" / "log.jsonl").open("a") as log:
    log.write('{"step": 6, "seco')  # as if it had been killed while writing
finish("one")
finish("two", workers=2, port=29617)
kill("two-killed", start("two-killed", workers=2, port=29618), 4)
finish("two-killed", workers=2, port=29619)
"""


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """The folders of runs of one and of two workers that were killed and started again, and of one of two workers that was not."""
    folder = tmp_path_factory.mktemp("interrupted")
    variables = os.environ | {"PYTHONPATH": str(SCRIPTS), "OMP_NUM_THREADS": "1"}
    process = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(folder)], check=False, capture_output=True, text=True, timeout=300, env=variables
    )
    assert process.returncode == 0, process.stderr
    return folder


def test_the_sizes_grow_together_and_the_largest_is_what_the_settings_begin_with():
    sizes = list(train_lab.SIZES.values())
    for smaller, larger in pairwise(sizes):
        assert all(smaller[name] < larger[name] for name in ("width", "depth", "heads", "ffn"))
    assert all(size["width"] == 32 * size["heads"] for size in sizes)
    assert train_lab.Settings() == train_lab.Settings(**train_lab.SIZES["lab-m"])


@pytest.mark.slow
def test_a_smoke_run_logs_every_step_and_takes_less_than_a_minute(smoke):
    out, records = smoke
    assert [record["step"] for record in records] == list(range(1, json.loads((out / "settings.json").read_text())["steps"] + 1))
    assert all(later["tokens"] > now["tokens"] for now, later in pairwise(records))
    assert {f"{kind}_{figure}" for kind in KINDS for figure in ("loss", "acc")} <= set().union(*records)
    assert records[-1]["text_loss"] < records[0]["text_loss"]
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["seconds"] < 60


@pytest.mark.slow
def test_a_smoke_run_leaves_a_checkpoint_curves_and_a_model_that_loads_without_the_training_code(smoke):
    out, _ = smoke
    assert torch.load(out / "checkpoint.pt", weights_only=True)["counters"]["step"] == 12
    assert (out / "curves.png").read_bytes()[1:4] == b"PNG"
    assert "attn_implementation" not in (out / "model" / "config.json").read_text()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out / "model"), AutoTokenizer.from_pretrained(out / "model")
    assert model.dtype == torch.bfloat16
    inputs = tokenizer("Input: 3, 7, 0, 9\nOutput:", return_tensors="pt")
    assert inputs["input_ids"].shape == (1, 6)
    loss = model(**inputs, labels=inputs["input_ids"]).loss
    assert torch.isfinite(loss)
    # The weights are those of the run: untrained ones would be as good as a guess among all tokens.
    assert loss < np.log(len(tokenizer)) - 0.1


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_with_the_losses_of_an_uninterrupted_run(smoke, interrupted):
    _, uninterrupted = smoke
    assert 5 <= len((interrupted / "one" / "killed.jsonl").read_text().splitlines()) < len(uninterrupted)
    assert log_of(interrupted / "one") == uninterrupted


@pytest.mark.slow
def test_two_workers_that_are_killed_go_on_as_if_they_had_not_been(interrupted):
    uninterrupted = log_of(interrupted / "two")
    assert 4 <= len((interrupted / "two-killed" / "killed.jsonl").read_text().splitlines()) < len(uninterrupted)
    assert log_of(interrupted / "two-killed") == uninterrupted


@pytest.mark.parametrize(
    ("step", "kept", "torn"),
    [(0, 0, ""), (2, 2, '{"step": 5, "icl_lo'), (4, 4, '{"step": 5}'), (4, 4, '{"step": 5, "icl_lo'), (9, 4, ""), (9, 4, '{"step": 5}')],
)
def test_what_was_logged_after_the_checkpoint_is_dropped(step, kept, torn, tmp_path):
    lines = [json.dumps({"step": number, "icl_loss": 1.0}) + "\n" for number in range(1, 5)]
    (tmp_path / "log.jsonl").write_text("".join(lines) + torn)
    train_lab.trim_log(tmp_path / "log.jsonl", step)
    assert (tmp_path / "log.jsonl").read_text() == "".join(lines[:kept])


def test_a_first_run_has_no_log_to_trim(tmp_path):
    train_lab.trim_log(tmp_path / "log.jsonl", 0)
    assert (tmp_path / "log.jsonl").read_text() == ""


def test_the_attention_of_the_training_is_causal_attention():
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 7, 8, generator=generator)
    mixed, _ = train_lab.causal_attention(torch.nn.Identity(), query, key, value, None, scaling=0.3)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3)
    torch.testing.assert_close(mixed.transpose(1, 2), expected)


def test_the_learning_rate_warms_up_stays_and_falls_to_zero():
    settings = train_lab.Settings(steps=1000, warmup=100, decay=0.4, lr=1.0)
    rates = [train_lab.schedule(settings, step) for step in range(1001)]
    assert rates[0] == 0.01
    assert set(rates[99:601]) == {1.0}
    assert rates[800] == 0.5
    assert rates[1000] == 0
    assert all(later <= now for now, later in pairwise(rates[600:]))


# --- curves


def test_the_running_mean_is_that_of_the_last_values():
    values = np.random.RandomState(0).standard_normal(50)
    expected = [values[max(0, end - 7) : end].mean() for end in range(1, 51)]
    assert lab_curves.running_mean(values, 7) == pytest.approx(expected)
    assert lab_curves.running_mean(values, 1) == pytest.approx(values)
    assert lab_curves.running_mean(values, 99)[-1] == pytest.approx(values.mean())


def test_curves_are_drawn_from_a_log_with_gaps(tmp_path):
    # Copying is trained on at some steps only.
    records = [
        {"step": step, "tokens": 100 * step, "dimensions": 1 + step // 5, "icl_loss": 1 / step, "icl_acc": 0.5}
        | ({"copy_loss": 2.0, "copy_acc": 0.1} if step % 2 else {})
        for step in range(1, 11)
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lab_curves.draw(tmp_path / "log.jsonl", tmp_path / "a.png")
    command = [sys.executable, SCRIPTS / "lab_curves.py", tmp_path / "log.jsonl", tmp_path / "b.png", "--window", "3"]
    subprocess.run(command, check=True, timeout=120)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.png", "b.png"))
    assert first[1:4] == second[1:4] == b"PNG"
    assert first != second
