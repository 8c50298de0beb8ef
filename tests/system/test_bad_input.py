"""Bad input, as a user would type it: each is one line that says the rule or the nearest name, and nothing was loaded."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import tiny
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from refusals import raises_line

from harness_ext import BadOptionError, HarnessExtError
from harness_ext.host import registration
from harness_ext.host.model import PrunedHFLM

ARGUMENTS = {
    # pruner
    "pruner=wnada": ["'wnada'", "Did you mean 'wanda'?"],
    "pruner=": ["pruner=''"],
    "pruner=5": ["pruner=5"],
    "pruner=None": ["pruner=None"],
    "pruner=owl": ["'owl'"],
    # sparsity
    "sparsty=0.7": ["'sparsty'", "Did you mean 'sparsity'?"],
    "sparsity=-0.1": ["sparsity=-0.1"],
    "sparsity=1": ["sparsity=1"],
    "sparsity=1.0": ["sparsity=1.0"],
    "sparsity=70": ["sparsity=70", "0.7"],
    "sparsity=abc": ["sparsity='abc'", "0.7", "2:4"],
    "sparsity=50%": ["sparsity='50%'"],
    "sparsity=124": ["sparsity=124", "YAML", "2:4"],
    "sparsity=0:4": ["sparsity=0:4", "m - 1"],
    "sparsity=4:4": ["sparsity=4:4", "m - 1"],
    "sparsity=2:0": ["sparsity=2:0", "m - 1"],
    "sparsity=nan": ["sparsity=nan"],
    "sparsity=true": ["sparsity=True"],
    "sparsity=None": ["sparsity=None"],
    "sparsity=": ["sparsity=''"],
    # options of a pruner
    "pruner.blocksize=64": ["'sparsegpt'", "'blocksize'", "Did you mean 'block_size'?", "block_size=128"],
    "pruner.=64": ["'sparsegpt'", "''"],
    "pruner.block_size=large": ["pruner.block_size='large'", "'sparsegpt'"],
    "pruner.block_size=0.5": ["pruner.block_size=0.5", "'sparsegpt'"],
    "pruner.block_size=true": ["pruner.block_size=True", "'sparsegpt'"],
    "pruner.block_size=0": ["pruner.block_size=0"],
    "pruner.damping=0": ["pruner.damping=0"],
    "pruner.damping=nan": ["pruner.damping=nan"],
    "pruner=wanda,pruner.block_size=64": ["'wanda'", "'block_size'"],
    "pruner=magnitude,pruner.per=column": ["pruner.per='column'", "'magnitude'", "'matrix'", "'row'"],
    "pruner=random,pruner.seed=-1": ["pruner.seed=-1"],
    "prunner.block_size=64": ["'prunner.block_size'", "Did you mean 'pruner'?"],
    "prune.block_size=64": ["'prune.block_size'", "Did you mean 'pruner'?"],
    "calib.samples=8": ["'calib.samples'", "calibration."],
    "block_size=64": ["'block_size'", "Did you mean 'pruner.block_size'?"],
    "samples=64": ["'samples'", "Did you mean 'calibration.samples'?"],
    "prunr=wanda": ["'prunr'", "Did you mean 'pruner'?"],
    "module=ffn": ["'module'", "Did you mean 'modules'?"],
    "pretraned=lab-s": ["'pretraned'", "Did you mean 'pretrained'?"],
    # calibration
    "calibration=c4": ["'c4'", "file, hub, self"],
    "calibration=slef": ["'slef'", "Did you mean 'self'?"],
    "calibration=": ["calibration=''"],
    "calibration=5": ["calibration=5"],
    "calibration=no/such/file.txt": ["calibration.path='no/such/file.txt'"],
    "calibration=file": ["calibration=file", "calibration.path="],
    "calibration=file,calibration.path=no/such/file": ["calibration.path='no/such/file'"],
    "calibration=file,calibration.path=7": ["calibration.path=7", "'file'"],
    "calibration=hub": ["calibration=hub", "calibration.dataset="],
    "calibration.samples=0": ["calibration.samples=0"],
    "calibration.samples=many": ["calibration.samples='many'", "'self'"],
    "calibration.seed=-1": ["calibration.seed=-1"],
    "calibration.seed=99999999999": ["calibration.seed=99999999999", "32"],
    "calibration.length=1": ["calibration.length=1"],
    "calibration.length=long": ["calibration.length='long'", "'self'"],
    "calibration.smaples=8": ["'self'", "'smaples'", "Did you mean 'samples'?"],
    "calibration.dataset=allenai/c4": ["'self'", "'dataset'"],
    "calibration.temperature=0": ["calibration.temperature=0"],
    # modules
    "modules=5": ["modules=5"],
    "modules=": ["modules=''"],
    # both good arguments and a bad one
    "pruner=wanda,sparsity=0.5,calibration.samples=8,modules=ffn,sparcity=0.7": ["'sparcity'", "Did you mean 'sparsity'?"],
}

METADATA = [
    ({"icl_labels": 1}, ["icl_labels=1"]),
    ({"icl_labels": 11}, ["icl_labels=11"]),
    ({"icl_dimensions": 0}, ["icl_dimensions=0"]),
    ({"icl_exemplars": 1}, ["icl_exemplars=1"]),
    ({"icl_items": 0}, ["icl_items=0"]),
    ({"icl_items": 3.5}, ["icl_items=3.5"]),
    ({"icl_items": "all"}, ["icl_items='all'"]),
    ({"icl_items": True}, ["icl_items=True"]),
    ({"icl_seed": -1}, ["icl_seed=-1"]),
    ({"icl_low": 9}, ["icl_low=9"]),
    ({"icl_lables": 3}, ["'icl_lables'", "Did you mean 'icl_labels'?"]),
    ({"icl_dimensions": 1}, ["icl_dimensions=1"]),  # ten points are too few for 32 exemplars
]


# The options of one source of items are checked whichever task is asked for; what only a task can tell, for that task.
OTHER_METADATA = [
    ({"facts_itms": 8}, ["'facts_itms'", "Did you mean 'facts_items'?"]),
    ({"facts_choices": 1}, ["facts_choices=1"]),
    ({"facts_distractors": -1}, ["facts_distractors=-1", "1000"]),
    ({"facts_seed": -1}, ["facts_seed=-1"]),
    ({"facts_items": 32769}, ["facts_items=32769", "32768"]),
    ({"facts_known": 3}, ["facts_known=3"]),
    ({"facts_known": "no/such/file.json"}, ["facts_known=no/such/file.json"]),
    ({"lookup_pairs": 0}, ["lookup_pairs=0", "1000"]),
    ({"lookup_pairs": 1001}, ["lookup_pairs=1001", "1000"]),
    ({"lookup_pair": 8}, ["'lookup_pair'", "Did you mean 'lookup_pairs'?"]),
    ({"lookup_items": 2.5}, ["lookup_items=2.5"]),
]


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch):
    def fail(*_, **__):
        pytest.fail("weights were loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    monkeypatch.setattr(HFLM, "_create_model", fail)


@contextmanager
def one_line(*parts, kind=BadOptionError):
    assert issubclass(kind, HarnessExtError)
    with raises_line(kind, *parts) as error:
        yield
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_model_arguments(arguments):
    with one_line(*ARGUMENTS[arguments]):
        PrunedHFLM.create_from_arg_string(arguments, {"batch_size": 1, "device": None})


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"sparsity": [0.5]}, ["sparsity=[0.5]"]),
        ({"sparsity": {"ratio": 0.5}}, ["sparsity={'ratio': 0.5}"]),
        ({"sparsity": "0.5", "pruner": ["wanda"]}, ["pruner=['wanda']"]),
        ({"sparsity": 0.5, "pruner": {"name": "wanda"}}, ["pruner={'name': 'wanda'}"]),
        ({"modules": ["attention", 5]}, ["modules=['attention', 5]"]),
        ({"modules": None}, ["modules=None"]),
        ({"calibration": {"samples": 8}}, ["calibration={'samples': 8}"]),
        ({"pruner.block_size": "64"}, ["pruner.block_size='64'", "'sparsegpt'"]),
    ],
    ids=str,
)
def test_model_arguments_given_as_json(arguments, parts):
    with one_line(*parts):
        PrunedHFLM.create_from_arg_obj(arguments, {"batch_size": 1})


@pytest.mark.parametrize(
    ("arguments", "config", "key"),
    [("batch_size=4", {"batch_size": "8"}, "batch_size"), ("device=cpu", {"device": "cpu"}, "device"),
     ("max_batch_size=4", {"max_batch_size": 4}, "max_batch_size")],
)  # fmt: skip
def test_arguments_given_twice(arguments, config, key):
    with one_line(key, "twice"):
        PrunedHFLM.create_from_arg_string(f"{arguments},sparsity=0.5", config)


@pytest.mark.parametrize(("content", "reason"), [("", "empty"), (b"\xff\xfe", "UTF-8"), ("{", "JSON")])
def test_calibration_files(tmp_path, content, reason):
    path = tmp_path / "text.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with one_line(str(path), reason, kind=HarnessExtError):
        PrunedHFLM.create_from_arg_string(f"sparsity=0.5,calibration={path}")


@pytest.mark.parametrize(("metadata", "parts"), [*METADATA, *OTHER_METADATA], ids=str)
def test_task_metadata(metadata, parts):
    registration.register()
    tasks = ["icl_linear", "icl"] if (metadata, parts) in METADATA else ["lab_facts_closed", "memory_vs_context"]
    for task in tasks:
        with one_line(*parts):
            TaskManager(include_path=registration.task_folders(), include_defaults=False, metadata=metadata).match_tasks([task])


def test_a_broken_plugin_is_named_where_it_might_have_been_meant(install_plugin):
    install_plugin("owl-pruner", "raise ImportError('no\\nluck')", version="0.2")
    with one_line("'owl'", "owl-pruner 0.2 (owl-pruner-entry): ImportError: no luck"):
        PrunedHFLM.create_from_arg_string("pruner=owl,sparsity=0.5")


def test_the_loader_is_reached_with_good_arguments(tmp_path):
    """That nothing was loaded above is not because nothing ever is."""
    folder = tiny.checkpoint(tmp_path)
    with pytest.raises(pytest.fail.Exception, match="weights were loaded"):
        PrunedHFLM.create_from_arg_string(f"pretrained={folder},sparsity=0.5,pruner.block_size=64,attn_implementation=eager,device=cpu")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [("modules=atention", ["modules='atention'", "'*.q_proj'", "Did you mean"]),
     ("calibration.length=33", ['calibration.length=33', '32']),
     ("sparsity=2:5", ["sparsity=2:5", "q_proj", "16"])],
)  # fmt: skip
def test_what_only_the_model_can_tell_comes_after_loading_and_is_one_line_as_well(tmp_path, monkeypatch, arguments, parts):
    monkeypatch.undo()
    sparsity = "" if "sparsity" in arguments else "sparsity=0.5,"
    with one_line(*parts):
        PrunedHFLM.create_from_arg_string(f"pretrained={tiny.checkpoint(tmp_path)},device=cpu,{sparsity}{arguments}")
