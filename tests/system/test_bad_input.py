"""Bad input, as a user would type it: each is one line that says the rule or the nearest name, and nothing was loaded."""

from __future__ import annotations

import pytest
import tiny
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from harness_ext import BadOptionError, HarnessExtError
from harness_ext.host import registration
from harness_ext.host.model import PrunedHFLM

ARGUMENTS = {
    # pruner
    "pruner=wnada": "no pruner named 'wnada'. Did you mean 'wanda'? Available: ",
    "pruner=": "pruner='': want the name of a pruner",
    "pruner=5": "pruner=5: want the name of a pruner",
    "pruner=None": "pruner=None: want the name of a pruner",
    "pruner=owl": "no pruner named 'owl'. Available: ",
    # sparsity
    "sparsty=0.7": "no argument 'sparsty'. Did you mean 'sparsity'?",
    "sparsity=-0.1": "sparsity=-0.1: want a ratio in [0, 1)",
    "sparsity=1": "sparsity=1: want a ratio in [0, 1)",
    "sparsity=1.0": "sparsity=1.0: want a ratio in [0, 1)",
    "sparsity=70": "for 70 percent say 0.7",
    "sparsity=abc": "sparsity='abc': want a ratio in [0, 1) such as 0.7, or a pattern such as 2:4",
    "sparsity=50%": "sparsity='50%': want a ratio in [0, 1)",
    "sparsity=124": "YAML reads an unquoted 2:4 as the base-60 number 124: quote it",
    "sparsity=0:4": "sparsity=0:4: in n:m, n zeros of every m weights, n must be between 1 and m - 1",
    "sparsity=4:4": "n must be between 1 and m - 1",
    "sparsity=2:0": "n must be between 1 and m - 1",
    "sparsity=nan": "sparsity=nan: want a ratio",
    "sparsity=true": "sparsity=True: want a ratio",
    "sparsity=None": "sparsity=None: want a ratio",
    "sparsity=": "sparsity='': want a ratio",
    # options of a pruner
    "pruner.blocksize=64": "pruner 'sparsegpt' has no option 'blocksize'. Did you mean 'block_size'? It takes: block_size=128",
    "pruner.=64": "pruner 'sparsegpt' has no option ''",
    "pruner.block_size=large": "pruner.block_size='large': pruner 'sparsegpt' wants int here",
    "pruner.block_size=0.5": "pruner.block_size=0.5: pruner 'sparsegpt' wants int",
    "pruner.block_size=true": "pruner.block_size=True: pruner 'sparsegpt' wants int",
    "pruner.block_size=0": "pruner.block_size=0: want at least one column",
    "pruner.damping=0": "pruner.damping=0: want a fraction of the mean diagonal above 0",
    "pruner.damping=nan": "pruner.damping=nan: want a fraction",
    "pruner=wanda,pruner.block_size=64": "pruner 'wanda' has no option 'block_size'",
    "pruner=magnitude,pruner.per=column": "pruner.per='column': pruner 'magnitude' wants Literal['matrix', 'row'] here",
    "pruner=random,pruner.seed=-1": "pruner.seed=-1: want a number of at least 0",
    "prunner.block_size=64": "no argument 'prunner.block_size'. Did you mean 'pruner'?",
    "prune.block_size=64": "Did you mean 'pruner'?",
    "calib.samples=8": "Dotted arguments begin with pruner., calibration. or allocation.",
    "block_size=64": "no argument 'block_size'. Did you mean 'pruner.block_size'?",
    "samples=64": "no argument 'samples'. Did you mean 'calibration.samples'?",
    "prunr=wanda": "no argument 'prunr'. Did you mean 'pruner'?",
    "module=ffn": "no argument 'module'. Did you mean 'modules'?",
    "pretraned=lab-s": "no argument 'pretraned'. Did you mean 'pretrained'?",
    # calibration
    "calibration=c4": "no calibration named 'c4'. Available: file, hub, self",
    "calibration=slef": "no calibration named 'slef'. Did you mean 'self'?",
    "calibration=": "calibration='': want the name of a calibration",
    "calibration=5": "calibration=5: want the name of a calibration",
    "calibration=no/such/file.txt": "calibration.path='no/such/file.txt': no such file",
    "calibration=file": "calibration=file wants calibration.path=FILE",
    "calibration=file,calibration.path=no/such/file": "no such file",
    "calibration=file,calibration.path=7": "calibration.path=7: calibration 'file' wants str here",
    "calibration=hub": "calibration=hub wants calibration.dataset=NAME",
    "calibration.samples=0": "calibration.samples=0: want at least one sequence",
    "calibration.samples=many": "calibration.samples='many': calibration 'self' wants int here",
    "calibration.seed=-1": "calibration.seed=-1: want a number of at least 0",
    "calibration.seed=99999999999": "calibration.seed=99999999999: want a number of at least 0 and below 2^32",
    "calibration.length=1": "calibration.length=1: want at least two tokens",
    "calibration.length=long": "calibration.length='long': calibration 'self' wants int | None here",
    "calibration.smaples=8": "calibration 'self' has no option 'smaples'. Did you mean 'samples'?",
    "calibration.dataset=allenai/c4": "calibration 'self' has no option 'dataset'",
    "calibration.temperature=0": "calibration.temperature=0: want a number above 0",
    # modules
    "modules=5": "modules=5: want all, attention, ffn, or a glob",
    "modules=": "modules='': want all, attention, ffn, or a glob",
    # both good arguments and a bad one
    "pruner=wanda,sparsity=0.5,calibration.samples=8,modules=ffn,sparcity=0.7": "no argument 'sparcity'. Did you mean 'sparsity'?",
}

METADATA = [
    ({"icl_labels": 1}, "icl_labels=1"),
    ({"icl_labels": 11}, "icl_labels=11"),
    ({"icl_dimensions": 0}, "icl_dimensions=0"),
    ({"icl_exemplars": 1}, "icl_exemplars=1"),
    ({"icl_items": 0}, "icl_items=0"),
    ({"icl_items": 3.5}, "icl_items=3.5: want an integer"),
    ({"icl_items": "all"}, "icl_items='all': want an integer"),
    ({"icl_items": True}, "icl_items=True: want an integer"),
    ({"icl_seed": -1}, "icl_seed=-1"),
    ({"icl_low": 9}, "icl_low=9"),
    ({"icl_lables": 3}, "no option 'icl_lables'. Did you mean 'icl_labels'?"),
    ({"icl_dimensions": 1}, "icl_dimensions=1"),  # ten points are too few for 32 exemplars
]


# The options of one source of items are checked whichever task is asked for; what only a task can tell, for that task.
OTHER_METADATA = [
    ({"facts_itms": 8}, "no option 'facts_itms'. Did you mean 'facts_items'?"),
    ({"facts_choices": 1}, "facts_choices=1: want 0 (no ranking) or at least 2"),
    ({"facts_distractors": -1}, "facts_distractors=-1: want 0 to 1000"),
    ({"facts_seed": -1}, "facts_seed=-1"),
    ({"facts_items": 24577}, "facts_items=24577: there are 24576 facts about memorised people"),
    ({"facts_known": 3}, "facts_known=3: want the path of a file"),
    ({"facts_known": "no/such/file.json"}, "facts_known=no/such/file.json: cannot be read"),
    ({"lookup_pairs": 0}, "lookup_pairs=0: want 1 to 1000"),
    ({"lookup_pairs": 1001}, "lookup_pairs=1001: want 1 to 1000"),
    ({"lookup_pair": 8}, "no option 'lookup_pair'. Did you mean 'lookup_pairs'?"),
    ({"lookup_items": 2.5}, "lookup_items=2.5: want an integer"),
]


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch):
    def fail(*_, **__):
        pytest.fail("weights were loaded")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    monkeypatch.setattr(HFLM, "_create_model", fail)


def one_line(error, text):
    assert isinstance(error.value, HarnessExtError)
    assert text in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_model_arguments(arguments):
    with pytest.raises(BadOptionError) as error:
        PrunedHFLM.create_from_arg_string(arguments, {"batch_size": 1, "device": None})
    one_line(error, ARGUMENTS[arguments])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"sparsity": [0.5]}, "sparsity=[0.5]: want a ratio"),
        ({"sparsity": {"ratio": 0.5}}, "want a ratio"),
        ({"sparsity": "0.5", "pruner": ["wanda"]}, "pruner=['wanda']: want the name of a pruner"),
        ({"sparsity": 0.5, "pruner": {"name": "wanda"}}, "want the name of a pruner"),
        ({"modules": ["attention"]}, "modules=['attention']: want all"),
        ({"modules": None}, "modules=None: want all"),
        ({"calibration": {"samples": 8}}, "want the name of a calibration"),
        ({"pruner.block_size": "64"}, "pruner.block_size='64': pruner 'sparsegpt' wants int here"),
    ],
    ids=str,
)
def test_model_arguments_given_as_json(arguments, text):
    with pytest.raises(BadOptionError) as error:
        PrunedHFLM.create_from_arg_obj(arguments, {"batch_size": 1})
    one_line(error, text)


@pytest.mark.parametrize(
    ("arguments", "config", "key"),
    [("batch_size=4", {"batch_size": "8"}, "batch_size"), ("device=cpu", {"device": "cpu"}, "device"),
     ("max_batch_size=4", {"max_batch_size": 4}, "max_batch_size")],
)  # fmt: skip
def test_arguments_given_twice(arguments, config, key):
    with pytest.raises(BadOptionError) as error:
        PrunedHFLM.create_from_arg_string(f"{arguments},sparsity=0.5", config)
    one_line(error, f"{key} is given twice, in the model arguments and beside them")


@pytest.mark.parametrize(("content", "text"), [("", "the file is empty"), (b"\xff\xfe", "not UTF-8"), ("{", "not JSON")])
def test_calibration_files(tmp_path, content, text):
    path = tmp_path / "text.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(HarnessExtError) as error:
        PrunedHFLM.create_from_arg_string(f"sparsity=0.5,calibration={path}")
    one_line(error, text)


@pytest.mark.parametrize(("metadata", "text"), METADATA, ids=str)
@pytest.mark.parametrize("task", ["icl_linear", "icl"])
def test_task_metadata(metadata, text, task):
    registration.register()
    with pytest.raises(BadOptionError) as error:
        TaskManager(include_path=registration.task_folders(), include_defaults=False, metadata=metadata).match_tasks([task])
    one_line(error, text)


@pytest.mark.parametrize(("metadata", "text"), OTHER_METADATA, ids=str)
@pytest.mark.parametrize("task", ["lab_facts_closed", "memory_vs_context"])
def test_metadata_of_facts_and_lookups(metadata, text, task):
    registration.register()
    with pytest.raises(BadOptionError) as error:
        TaskManager(include_path=registration.task_folders(), include_defaults=False, metadata=metadata).match_tasks([task])
    one_line(error, text)


def test_a_broken_plugin_is_named_where_it_might_have_been_meant(install_plugin):
    install_plugin("owl-pruner", "raise ImportError('no\\nluck')", version="0.2")
    with pytest.raises(BadOptionError) as error:
        PrunedHFLM.create_from_arg_string("pruner=owl,sparsity=0.5")
    one_line(error, "Not loaded: owl-pruner 0.2 (owl-pruner-entry): ImportError: no luck")


def test_the_loader_is_reached_with_good_arguments(tmp_path):
    """That nothing was loaded above is not because nothing ever is."""
    folder = tiny.checkpoint(tmp_path)
    with pytest.raises(pytest.fail.Exception, match="weights were loaded"):
        PrunedHFLM.create_from_arg_string(f"pretrained={folder},sparsity=0.5,pruner.block_size=64,attn_implementation=eager,device=cpu")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [("modules=atention", "modules='atention' selects no layer: want all, attention, ffn, or a glob such as '*.q_proj'. Did you mean"),
     ("calibration.length=33", "calibration.length=33: the model takes at most 32 tokens"),
     ("sparsity=2:5", "q_proj has 16 inputs, which 5 does not divide")],
)  # fmt: skip
def test_what_only_the_model_can_tell_comes_after_loading_and_is_one_line_as_well(tmp_path, monkeypatch, arguments, text):
    monkeypatch.undo()
    sparsity = "" if "sparsity" in arguments else "sparsity=0.5,"
    with pytest.raises(BadOptionError) as error:
        PrunedHFLM.create_from_arg_string(f"pretrained={tiny.checkpoint(tmp_path)},device=cpu,{sparsity}{arguments}")
    one_line(error, text)
