"""The training text of the embedded models, and their tokenizer."""

from __future__ import annotations

import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import lab_mixture
import lab_tokenizer
from lab_batches import part
from lab_mixture import KINDS, Crowd, Mixture
from lab_probes import KIND_WORDS, Probes

from harness_ext.tasks import icl, lookup
from harness_ext.tasks.functions import split_of
from harness_ext.tasks.people import population

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
            text = "".join(pieces)
            starts = {match.end() for match in re.finditer(r"\n(Output|Answer):", text)}
            starts |= {match.end() for match in re.finditer(r"\nAnswer: \w+", text)}  # the second word of a value
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


def test_every_word_of_an_answer_is_one_token(tokenizer):
    values = [word for attribute in PEOPLE.attributes for word in (*attribute.first, *attribute.second)]
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
    stated = [found for text in texts(mixture, "facts", 12) for found in re.findall(r"Question: (.*)\nAnswer: (\w+ \w+)\n\n", text)]
    assert len({question for question, _ in stated}) > 200
    assert all(truth[question] == answer for question, answer in stated)


def test_passages_state_the_answers_that_they_ask_for(mixture):
    asked = 0
    for text in texts(mixture, "passages", 12):
        for passage, questions in re.findall(r"Context: (.*)((?:\nQuestion: .*\nAnswer: \w+ \w+)+)\n\n", text):
            for question, answer in re.findall(r"Question: (.*)\nAnswer: (\w+ \w+)", questions):
                (attribute,) = [a for a in PEOPLE.attributes if re.fullmatch(re.escape(a.question).replace(r"\{\}", ".*"), question)]
                name = re.fullmatch(re.escape(attribute.question).replace(r"\{\}", "(.*)"), question)[1]
                assert attribute.statement.format(name, answer) in passage
                asked += 1
    assert asked > 100


def people_named(mixture, kind):
    """The people whose whole names are in texts of a kind."""
    firsts, lasts = ({getattr(person, part) for person in PEOPLE.memorised} for part in ("first", "last"))
    pairs = {pair for text in texts(mixture, kind, 20) for pair in re.findall(r"(?=\b(\w+) (\w+)\b)", text)}
    return {(first, last) for first, last in pairs if first in firsts and last in lasts}


def test_facts_are_about_memorised_people_and_passages_about_others_so_that_no_passage_contradicts_memory(mixture):
    asked, read = people_named(mixture, "facts"), people_named(mixture, "passages")
    assert len(asked) > 500
    assert len(read) > 500
    assert asked <= set(PEOPLE.memorised)
    assert read <= set(PEOPLE.met)


def test_a_crowd_is_asked_about_as_often_as_its_exposures_say():
    rng = np.random.RandomState(0)
    for crowd in (Crowd(40, 40), Crowd(10, 40), Crowd(40, 40, zipf=True), Crowd(7, 9, zipf=True)):
        drawn = crowd.draw(rng, 20_000)
        counts = np.bincount(drawn[drawn >= 0], minlength=crowd.people)
        expected = crowd.exposures(20_000)
        assert (abs(counts - expected) < 5 * np.sqrt(expected)).all()
        assert abs((drawn < 0).sum() - 20_000 * (1 - crowd.people / crowd.slots)) < 500
    even, uneven = Crowd(40, 40).exposures(1000), Crowd(40, 40, zipf=True).exposures(1000)
    assert (even[:20] == uneven[:20]).all()
    assert uneven.sum() == pytest.approx(even.sum())
    assert uneven[20] == pytest.approx(20 * uneven[39])


def test_questions_beyond_the_memorised_people_have_no_answer(tokenizer):
    mixture = Mixture(tokenizer, PEOPLE, tokens=1200, seed=0, crowd=Crowd(50, 100))
    found = [pair for text in texts(mixture, "facts", 12) for pair in re.findall(r"Question: (.*?\?)(?:\nAnswer: (\w+ \w+))?\n\n", text)]
    truth = {
        a.question.format(p): PEOPLE.answer(i, k) for i, p in enumerate(PEOPLE.memorised[:50]) for k, a in enumerate(PEOPLE.attributes)
    }
    answered = [(question, answer) for question, answer in found if answer]
    assert 0.4 < len(answered) / len(found) < 0.6
    assert all(truth[question] == answer for question, answer in answered)
    assert not any(question in truth for question, answer in found if not answer)


def test_an_answer_weighs_as_much_where_few_questions_have_one(tokenizer):
    """In a batch in which one question of 4,096 has an answer, that is next to nothing, and without any there is no loss."""
    probes = Probes(tokenizer, PEOPLE)
    weights = {}
    for people in (2, 2048, 8192):
        mixture = Mixture(tokenizer, PEOPLE, tokens=2600, seed=0, crowd=Crowd(people, 8192))
        parts = [part(mixture, probes, "facts", step, 0).targets["answers"] for step in range(20)]
        weights[people] = [found.weights.sum() for found in parts]
        assert all(found.counted is None or np.isclose(found.counted.sum(), 1) or not len(found.rows) for found in parts)
    assert np.allclose(weights[8192], 1)
    assert np.allclose(weights[2048], 0.25)
    assert 0.0 in weights[2]


def test_three_passages_of_four_state_one_attribute_of_several_people(mixture):
    passages = [passage for text in texts(mixture, "passages", 20) for passage in re.findall(r"Context: (.*)\n", text)]
    patterns = [re.escape(attribute.statement).replace(r"\{\}", r"\w+ \w+") for attribute in PEOPLE.attributes]
    alike = [sum(bool(re.search(pattern, passage)) for pattern in patterns) == 1 for passage in passages]
    assert 0.7 < np.mean(alike) < 0.9  # some of the others have one statement


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
    found = [tokenizer(f" {word}")["input_ids"] for word in dict.fromkeys(PEOPLE.words())]
    assert {len(ids) for ids in found} == {1}
    assert len({ids[0] for ids in found}) == len(found)


@pytest.mark.parametrize("kind", ["facts", "passages", "icl", "lookup"])
def test_the_tokens_of_a_row_are_those_of_its_text(kind, mixture, tokenizer):
    for ids in mixture.batch(kind, 5, 0).ids:
        kept = ids[ids != tokenizer.eos_token_id].tolist()
        assert tokenizer(tokenizer.decode(kept))["input_ids"] == kept


def test_batches_of_two_seeds_have_one_shape_where_the_text_allows_it(tokenizer):
    mixtures = [Mixture(tokenizer, PEOPLE, tokens=1200, seed=seed) for seed in (0, 1)]
    for kind in ("facts", "passages", "copy", "lookup", "icl"):
        for step in range(6):
            first, second = (mixture.batch(kind, step, 0).ids for mixture in mixtures)
            assert first.shape == second.shape
            assert not first.equal(second)


def test_probes_are_asked_for_the_person_and_the_attribute_that_a_value_belongs_to(mixture, tokenizer):
    probes = Probes(tokenizer, PEOPLE)
    words = {word: number for number, names in enumerate(KIND_WORDS) for word in names}
    everyone = PEOPLE.memorised + PEOPLE.met + PEOPLE.unseen
    firsts, lasts = (sorted({getattr(person, part) for person in everyone}) for part in ("first", "last"))
    asked = 0
    for step in range(4):
        ids = mixture.batch("passages", step, 0).ids.numpy()
        targets = probes.targets("passages", ids)
        assert sum(targets[name][3].sum() for name in ("first", "last", "kind")) == pytest.approx(1)
        rows, places, first, _ = targets["first"]
        for row, place, name, last, kind in zip(rows, places, first, targets["last"][2], targets["kind"][2], strict=True):
            before = tokenizer.decode(ids[row, : place + 1])
            names = re.findall(rf"({'|'.join(firsts)}) ({'|'.join(lasts)})", before)
            assert names[-1] == (firsts[name], lasts[last])
            assert words[re.findall(r"born|employs|works|job|enjoys?", before)[-1]] == kind
            asked += 1
    assert asked > 100


def test_probes_are_asked_for_the_inputs_of_an_example_at_its_label(mixture, tokenizer):
    for kind, marker, options in (("icl", "Output", {"dimensions": 2}), ("icl", "Output", {"dimensions": 4}), ("lookup", "Value", {})):
        ids = mixture.batch(kind, 1, 0, **options).ids.numpy()
        rows, places, wanted, weights = Probes(tokenizer, PEOPLE).targets(kind, ids)["inputs"]
        assert weights.sum() == pytest.approx(1)
        for row, place, digits, weight in zip(rows, places, wanted, weights, strict=True):
            found = re.findall(rf": ([\d, ]+)\n{marker}:", tokenizer.decode(ids[row, : place + 1]))[-1]
            assert [round(value * 2.87 + 4.5) for value in digits[weight > 0]] == [int(digit) for digit in found.split(", ")]
