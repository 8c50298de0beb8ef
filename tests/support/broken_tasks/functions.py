"""Documents for the broken tasks beside this file, each good but for what the task is named after."""

import itertools

import datasets

CITIES = ("Lima", "Oslo", "Quito", "Rome")
_builds = itertools.count()


def _load(rows):
    return {"test": datasets.Dataset.from_list(rows), "train": datasets.Dataset.from_list([_row(number) for number in range(100, 104)])}


def _row(number, **changes):
    return {"number": number, "prompt": f"Where is place {number}?", "choices": list(CITIES), "target": number * 7 // 3 % 4, **changes}


def good(**_):
    return _load([_row(number) for number in range(48)])


def target_outside(**_):
    return _load([_row(number, target=4 if number == 5 else 1) for number in range(48)])


def choice_twice(**_):
    return _load([_row(number, choices=["Lima", "Oslo", "Lima", "Rome"] if number == 6 else list(CITIES)) for number in range(48)])


def choice_prefix(**_):
    return _load([_row(number, choices=["Lima", "Oslo", "Lima Peru", "Rome"] if number == 7 else list(CITIES)) for number in range(48)])


def answer_told(**_):
    told = _row(9)
    told["prompt"] = f"{CITIES[told['target']]} is where place 9 is. Where is it?"
    return _load([told if number == 9 else _row(number) for number in range(48)])


def the_same(**_):
    return _load([_row(number if number != 11 else 3) for number in range(48)])


def another_each_time(**_):
    build = next(_builds)
    return _load([_row(number, prompt=f"Where is place {number}, build {build}?") for number in range(48)])


def unbalanced(**_):
    return _load([_row(number, target=0 if number % 6 else 1) for number in range(48)])


def long(**_):
    return _load([_row(number, prompt="Where is it? " * (300 if number == 13 else 1) + str(number)) for number in range(48)])


def fails(**_):
    raise RuntimeError("no documents today")


def nothing_right(doc, results):
    return {"acc": 0.0}


def everything_right(doc, results):
    return {"acc": 1.0}


def good_with_overlap(**_):
    return {**good(), "train": datasets.Dataset.from_list([_row(number) for number in range(40, 60)])}


def long_examples(**_):
    examples = [_row(number, prompt="Somewhere, not here. " * 20 + str(number)) for number in range(100, 108)]
    return {**good(), "train": datasets.Dataset.from_list(examples)}


def no_answer(**_):
    return _load([_row(number, city=None if number == 15 else CITIES[number % 4]) for number in range(48)])


def with_answers(**_):
    return _load([_row(number, city=CITIES[number % 4]) for number in range(48)])


def fails_at_17(doc):
    if doc["number"] == 17:
        raise KeyError("country")
    return doc["prompt"]


def no_gold(doc, results):
    return {"acc": doc["gold"]}
