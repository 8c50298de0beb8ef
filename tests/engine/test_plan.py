"""Plans: names are looked up and options checked before a model is there."""

from __future__ import annotations

import pytest
import tiny
import torch
from harness_ext_calibrations.self_generated import SelfGenerated
from refusals import raises_line

from harness_ext import BadOptionError, Calibration, ModelPruner, PluginError, Pruner, Statistic
from harness_ext.engine.plan import make_plan, take_plan
from harness_ext.errors import UnknownNameError
from harness_ext.plugins import Plugins


@pytest.fixture(scope="module")
def plugins():
    return Plugins()


UNIFORM = {"allocation": "uniform", "allocation_options": {}, "precision": "float32"}


def test_without_arguments_nothing_is_removed(plugins):
    plan = make_plan(plugins)
    assert plan.describe() == {
        "pruner": "sparsegpt",
        "pruner_options": {"block_size": 128, "damping": 0.01},
        "sparsity": "0",
        "modules": "all",
        **UNIFORM,
    }
    assert not plan.needs_calibration


def test_our_arguments_are_taken_and_the_others_left(plugins):
    arguments = {
        "pruner": "sparsegpt", "sparsity": "2:4", "modules": "ffn", "calibration": "self", "pruner.block_size": 64,
        "calibration.samples": 3, "calibration.temperature": 0.5, "dtype": "float32", "parallelize": False, "attn_implementation": "eager",
    }  # fmt: skip
    plan = take_plan(plugins, arguments)
    assert arguments == {"dtype": "float32", "parallelize": False, "attn_implementation": "eager"}
    assert plan.describe() == {
        "pruner": "sparsegpt",
        "pruner_options": {"block_size": 64, "damping": 0.01},
        "sparsity": "2:4",
        "modules": "ffn",
        **UNIFORM,
        "calibration": "self",
        "calibration_options": {"samples": 3, "length": None, "seed": 0, "bos": "auto", "temperature": 0.5},
    }
    assert plan.pruner_origin.distribution == plan.calibration_origin.distribution == "lm-eval-pruned"


def test_options_without_a_name_are_those_of_the_default(plugins):
    plan = take_plan(plugins, {"pruner.block_size": 32, "calibration.seed": 4})
    assert plan.pruner.options() == {"block_size": 32, "damping": 0.01}
    assert plan.calibration == SelfGenerated(seed=4)


@pytest.mark.parametrize(
    ("pruner", "sparsity", "needed"),
    [
        ("sparsegpt", 0.5, True),
        ("wanda", "2:4", True),
        ("wanda", 0, False),
        ("magnitude", 0.5, False),
        ("random", 0.5, False),
        (type("Own", (ModelPruner,), {"name": "own", "prune_model": lambda *_: None, "calibrated": True})(), 0.5, True),
        (type("Own", (ModelPruner,), {"name": "own", "prune_model": lambda *_: None})(), 0.5, False),
    ],
)
def test_calibration_is_needed_where_something_is_measured(plugins, pruner, sparsity, needed):
    plan = make_plan(plugins, pruner=pruner, sparsity=sparsity)
    assert plan.needs_calibration == needed
    assert ("calibration" in plan.describe()) == needed


class TestCalibration:
    def test_may_be_a_path_to_a_file(self, plugins, tmp_path):
        path = tmp_path / "text"
        path.write_text("some text")
        plan = take_plan(plugins, {"calibration": str(path), "calibration.samples": 2})
        assert (plan.calibration.name, plan.calibration.path, plan.calibration.samples) == ("file", str(path), 2)

    def test_may_not_be_two_paths(self, plugins, tmp_path):
        path = tmp_path / "text.txt"
        path.write_text("some text")
        with raises_line(BadOptionError, f"calibration={str(path)!r}", "calibration.path="):
            take_plan(plugins, {"calibration": str(path), "calibration.path": str(path)})

    def test_a_name_wins_over_a_file_of_that_name(self, plugins, tmp_path, monkeypatch):
        (tmp_path / "self").write_text("some text")
        monkeypatch.chdir(tmp_path)
        assert isinstance(make_plan(plugins, calibration="self").calibration, SelfGenerated)

    def test_an_instance_is_checked_as_well(self, plugins):
        class Own(Calibration):
            name = "own"

            def check(self):
                raise BadOptionError("not today")

            def texts(self):
                yield from ()

        with pytest.raises(BadOptionError, match="not today"):
            make_plan(plugins, calibration=Own())

    @pytest.mark.parametrize("calibration", [tiny.token_ids(), SelfGenerated()], ids=["token ids", "instance"])
    def test_options_do_not_go_with_token_ids_or_an_instance(self, plugins, calibration):
        with raises_line(BadOptionError, "calibration options"):
            make_plan(plugins, calibration=calibration, calibration_options={"samples": 3})

    @pytest.mark.parametrize("ids", [tiny.token_ids().float(), tiny.token_ids()[None], torch.zeros(3, 0, dtype=torch.int64)])
    def test_token_ids_must_be_int64_samples_by_length(self, plugins, ids):
        with raises_line(BadOptionError, "calibration", "int64", "[samples, length]"):
            make_plan(plugins, calibration=ids)

    @pytest.mark.parametrize("how", [{"pruner": "wanda"}, {"modules": "ffn"}, {"allocation": "owl"}, {"pruner": "gptq"}])
    def test_a_method_without_an_amount_does_not_leave_the_model_dense(self, plugins, how):
        with raises_line(BadOptionError, *(f"{name}='{value}'" for name, value in how.items()), "sparsity=0.5"):
            take_plan(plugins, dict(how))
        assert not take_plan(plugins, how | {"sparsity": 0}).changes

    def test_is_checked_also_where_it_is_not_used(self, plugins):
        with raises_line(BadOptionError, "calibration.samples=0"):
            take_plan(plugins, {"pruner": "magnitude", "sparsity": 0.5, "calibration.samples": 0})


def test_an_unknown_name_comes_with_the_nearest_and_all_names(plugins):
    with pytest.raises(UnknownNameError) as error:
        make_plan(plugins, pruner="wnada")
    text = str(error.value)
    assert text.startswith("no pruner named 'wnada'. Did you mean 'wanda'? Available: ")
    assert all(name in text for name in ("magnitude", "random", "sparsegpt", "wanda"))


def test_plugins_that_failed_to_load_are_named_where_they_might_have_been_meant(install_plugin):
    install_plugin("owl-pruner", "import a_module_that_is_not_there", version="0.2")
    with raises_line(UnknownNameError, "'owl'", "owl-pruner 0.2", "No module named 'a_module_that_is_not_there'"):
        make_plan(Plugins(), pruner="owl")
    assert make_plan(Plugins(), pruner="wanda").pruner.name == "wanda"


class Idle(Pruner):
    name = "idle"


class Unread(Calibration):
    name = "unread"


class Deaf(Pruner):
    name = "deaf"
    statistic = type("Half", (Statistic,), {})

    def score(self, weight, statistic):
        return weight


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pruner": Idle()}, "Idle overrides none of score, prune and prune_together"),
        ({"pruner": Deaf()}, "Deaf: its statistic Half does not override update"),
        ({"calibration": Unread()}, "Unread overrides neither texts nor input_ids"),
    ],
)
def test_an_instance_that_overrides_nothing_is_refused_before_a_model_is_touched(given, message):
    with pytest.raises(PluginError) as error:
        make_plan(Plugins(), sparsity=0.5, **given)
    assert str(error.value) == message


class Halves(Pruner):
    """Removes a half, or nothing."""

    name = "halves"

    def check_sparsity(self, sparsity):
        if sparsity.ratio != 0.5:
            raise BadOptionError(f"sparsity={sparsity}: want 0.5")

    def score(self, weight, statistic):
        return weight.abs()


def test_a_sparsity_that_the_pruner_refuses_is_an_error_of_the_plan(plugins):
    with raises_line(BadOptionError, "sparsity=0.7: want 0.5"):
        make_plan(plugins, pruner=Halves(), sparsity=0.7)
    for sparsity in (0, 0.5):
        assert make_plan(plugins, pruner=Halves(), sparsity=sparsity).sparsity.ratio == sparsity


def test_torch_has_no_patterns_and_says_so_in_the_plan(plugins):
    with raises_line(BadOptionError, "sparsity=2:4", "torch"):
        make_plan(plugins, pruner="torch", sparsity="2:4")
