"""Checks the trials of a sweep against their models, before any weight is loaded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness_ext.errors import BadOptionError, HarnessExtError, shortened
from harness_ext.host.chat_template import check_chat_template
from harness_ext.host.model_folder import model_folder
from harness_ext.host.preflight import Checked, check_config, check_plan, without_weights
from harness_ext.plugins import Plugins
from harness_ext.sweep.grid import TrialSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OF_WEIGHTS = ("gguf_file", "subfolder")  # where the model is, and a tokenizer of its own is not
OF_CONFIGURATION = ("revision", "trust_remote_code", "gguf_file", "subfolder")


def check_models(plugins: Plugins, trials: Sequence[TrialSpec]) -> None:
    """Checks each trial that prunes: the blocks of its model, and what their shapes tell of the sparsity, the allocation and the options.

    Raises:
        HarnessExtError: the first trial that cannot be done; names it.
    """
    models: dict[str, tuple[PreTrainedModel | None, Checked]] = {}
    for trial in trials:
        if trial.is_dense:
            continue
        place = place_of(trial)
        key = json.dumps([trial.pretrained, place], sort_keys=True, default=str)
        try:
            if key not in models:
                models[key] = skeleton(plugins, trial.pretrained, place), {}
            model, checked = models[key]
            if model is not None:
                check_plan(trial.plan, model, checked)
        except HarnessExtError as error:
            raise type(error)(f"{shortened(trial)}: {error}") from error


def place_of(trial: TrialSpec) -> dict[str, Any]:
    """Where transformers finds the configuration of the trial's model."""
    return {name: trial.arguments[name] for name in OF_CONFIGURATION if trial.arguments.get(name)}


def tokenizer_of(plugins: Plugins, trial: TrialSpec) -> Any:
    """The tokenizer of the trial's model.

    Raises:
        Exception: whatever transformers or the hub raise.
    """
    from transformers import AutoTokenizer

    place = place_of(trial)
    own = trial.arguments.get("tokenizer")
    if own:
        return AutoTokenizer.from_pretrained(own, **{name: value for name, value in place.items() if name not in OF_WEIGHTS})
    return AutoTokenizer.from_pretrained(model_folder(plugins, trial.pretrained, place.get("gguf_file")), **place)


def check_templates(plugins: Plugins, trials: Sequence[TrialSpec], asked: bool | str) -> None:
    """Checks that the tokenizer of each model has the chat template that was asked for. A tokenizer that cannot be made is left out:
    loading its model says why.

    Raises:
        BadOptionError: it has not; names the model.
    """
    for trial in {trial.pretrained: trial for trial in trials}.values() if asked else ():
        try:
            tokenizer = tokenizer_of(plugins, trial)
        except Exception:  # whatever transformers or the hub raise
            continue
        try:
            check_chat_template(tokenizer, asked)
        except BadOptionError as error:
            raise BadOptionError(f"{shortened(trial.pretrained)}: {error}") from error


def skeleton(plugins: Plugins, pretrained: str, place: dict[str, Any]) -> PreTrainedModel | None:
    """A model without weights; None where its configuration cannot be read, which loading the model will say."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_folder(plugins, pretrained, place.get("gguf_file")), **place)
    except Exception:  # whatever transformers or the hub raise
        return None
    check_config(config, pretrained)
    return without_weights(config, pretrained, trust_remote_code=bool(place.get("trust_remote_code")))
