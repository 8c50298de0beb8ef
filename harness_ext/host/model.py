"""``pruned-hf``: lm-eval's ``hf``, with pruning after the model is loaded."""

from __future__ import annotations

import inspect
import logging
import os
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
import transformers
from lm_eval.models.huggingface import HFLM

from harness_ext.engine import ranks
from harness_ext.engine.plan import ARGUMENTS, take_plan
from harness_ext.engine.run import apply
from harness_ext.engine.terminal import show_log
from harness_ext.engine.wrappers import check_unwrapped
from harness_ext.errors import BadOptionError, did_you_mean, one_line, shown
from harness_ext.host.arguments import DEFAULT_MODEL
from harness_ext.host.batch_size import default_batch_size, is_default_batch_size
from harness_ext.host.cache import separate, table_name
from harness_ext.host.chat_template import check_chat_template
from harness_ext.host.command_line import typed_command
from harness_ext.host.encoded_texts import EncodedTexts, is_stock, texts_of
from harness_ext.host.environment import compile_templates_once, quieten_git
from harness_ext.host.model_arguments import check_model_arguments
from harness_ext.host.model_folder import is_path, no_such_model, registered_folder
from harness_ext.host.peft import check_adapter, merged
from harness_ext.host.preflight import check_arguments, check_config, check_plan, check_tokenizer, without_weights
from harness_ext.host.requests import Request
from harness_ext.host.shared_prompts import SharedPrompts
from harness_ext.plugins import Plugins
from harness_ext.weights import gguf
from harness_ext.weights.checkpoint_record import of_checkpoint
from harness_ext.weights.loading import Checked

log = logging.getLogger(__name__)
Self = TypeVar("Self", bound="PrunedHFLM")


class PrunedHFLM(HFLM):  # type: ignore[misc]
    """lm-eval's ``hf`` with pruning. It takes all arguments of ``hf``, and the following ones.

    Args:
        pretrained: as in ``hf``, or the name of a registered model; by default the embedded model ``lab-m``.
        peft: as in ``hf``. For pruning, the adapter is first merged into the weights.
        pruner: the name of a registered pruner (default ``sparsegpt``) or quantizer.
        sparsity: the share of weights to remove, in [0, 1), or a pattern such as ``2:4``; by default 0, the dense model.
        bits: of a weight, 2 to 8, for a quantizer such as ``gptq``. Quantisation is simulated: the weights stay in the dtype of the model.
        modules: ``all``, ``attention``, ``ffn``, or a glob over module names; or several joined by ``+``, with exclusions:
            ``all+!model.layers.0.*``.
        calibration: ``self``, ``hub``, a text or JSONL file, or another registered source.
        allocation: how the sparsity is spread over layers: ``uniform``, ``owl``, ``global``, a file, or another registered allocation.
        precision: ``float32`` or ``float64``, for statistics and arithmetic.
        true_sequential: prune the layers of a block in order of use, each calibrated on the outputs of the pruned layers before it.
        share_prompts: run each prompt once for all its answer choices. False runs it once for each choice, as ``hf`` does.
        calibration_cache: keep calibration tokens on disk for later runs.
        resume: a folder for checkpoints of the pruning, one for each decoder block.
        pruner.*, calibration.*, allocation.*: options such as ``pruner.block_size=64`` and ``calibration.samples=64``.

    Raises:
        BadOptionError: an argument is wrong. This is checked before weights are loaded.
        UnsupportedModelError: the model cannot be pruned. This is checked before weights are loaded if the configuration tells.

    Examples:
        >>> from lm_eval import simple_evaluate
        >>> from harness_ext import PrunedHFLM
        >>> lm = PrunedHFLM("lab-xs", pruner="magnitude", sparsity=0.5, device="cpu")
        >>> lm.pruning_record["achieved_sparsity"]
        0.5
        >>> results = simple_evaluate(lm, tasks=["kv_4"], limit=16, bootstrap_iters=0)
        >>> 0 <= results["results"]["kv_4"]["acc,none"] <= 1
        True

        Options have a dot in their names, and are passed in a dictionary:

        >>> options = {"calibration.samples": 4, "calibration.seed": 1}
        >>> lm = PrunedHFLM("lab-xs", pruner="wanda", sparsity=0.5, **options)
        >>> lm.pruning_record["calibration"]["samples"]
        4
    """

    def __init__(
        self, pretrained: str | transformers.PreTrainedModel = DEFAULT_MODEL, *, share_prompts: bool = True, **arguments: Any
    ) -> None:
        quieten_git()
        compile_templates_once()
        plugins = Plugins()
        plan = take_plan(plugins, arguments)
        check_model_arguments(arguments | {"share_prompts": share_prompts}, plan)
        if isinstance(pretrained, str) and pretrained in plugins.models.items:
            pretrained = registered_folder(plugins, pretrained)
        elif isinstance(pretrained, str) and is_path(pretrained) and not os.path.isdir(os.path.expanduser(pretrained)):
            raise no_such_model(plugins, pretrained, f"pretrained={shown(pretrained)}")
        # The default of hf is "cuda", which fails without a GPU unless lm-eval's command line passes a device.
        arguments.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
        self._plan, self._decisive_arguments = plan, dict(arguments)
        if self._prunes:
            check_arguments(arguments)
            if not isinstance(pretrained, str):
                check_unwrapped(pretrained)
        gguf_file, weights = arguments.get("gguf_file"), {}
        if gguf_file and isinstance(pretrained, str):
            weights = {"pretrained": pretrained} | gguf.origin(gguf.find(pretrained, gguf_file, arguments.get("revision")))
        adapter = arguments.get("peft") if self._prunes and isinstance(pretrained, str) else None  # hf ignores peft if it is given a model
        if adapter:
            check_adapter(adapter, arguments.get("revision", "main"))
        self._encoded_texts = EncodedTexts(self._encode_many)
        with ranks.left_at_exit():
            super().__init__(pretrained=pretrained, **arguments)
        # Only now: a name on the hub that cannot be loaded is not looked up once more.
        self.checkpoint_record = (
            of_checkpoint(pretrained, revision=arguments.get("revision"), subfolder=arguments.get("subfolder"))
            if isinstance(pretrained, str)
            else {}
        )
        if adapter:
            self._model = merged(self.model, adapter)
        self._shared_prompts = SharedPrompts(self) if share_prompts else None
        self.pruning_record = apply(plan, self.model, self.tokenizer) | ({"source": weights} if weights else {}) | self.checkpoint_record

    @property
    def _prunes(self) -> bool:
        return self._plan.changes

    def _get_config(self, pretrained: str, *, trust_remote_code: bool = False, **others: Any) -> None:
        """As in lm-eval, which loads the configuration first. Raises an error if the model does not exist or cannot be pruned."""
        try:
            super()._get_config(pretrained, trust_remote_code=trust_remote_code, **others)
        except (OSError, ValueError) as error:  # no config.json, unknown name on the hub, no network, or unknown architecture
            raise _not_loaded(pretrained, error) from error
        if self._prunes:
            check_config(self._config, pretrained)
            check_plan(self._plan, without_weights(self._config, pretrained, trust_remote_code=trust_remote_code))

    def _create_model(self, pretrained: str, *, gguf_file: str | None = None, **arguments: Any) -> None:
        """As in lm-eval, but missing weights are an error; transformers would draw them at random. Weights of a GGUF file are dequantised,
        also for the dense model, so that dense and pruned results are of the same weights.
        """
        if self._prunes:
            check_tokenizer(self._plan, self.tokenizer, pretrained)
        if gguf_file:
            arguments["quantization_config"] = gguf.dequantised()
        auto = getattr(self, "AUTO_MODEL_CLASS")  # noqa: B009 - the class has no types
        self.AUTO_MODEL_CLASS = Checked(auto)
        try:
            super()._create_model(pretrained, gguf_file=gguf_file, **arguments)
        except OSError as error:  # no weights
            raise _not_loaded(pretrained, error) from error
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if unknown is None or unknown[1] not in arguments:
                raise
            hint = did_you_mean(unknown[1], [*inspect.signature(HFLM.__init__).parameters, *ARGUMENTS, "share_prompts"])
            raise BadOptionError(f"no argument {shown(unknown[1])}: neither hf nor this model has it.{hint}") from error
        finally:
            self.AUTO_MODEL_CLASS = auto

    @classmethod
    def create_from_arg_obj(cls: type[Self], arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None) -> Self:
        """As in lm-eval. Without a batch size, one is chosen for the size of the model."""
        show_log()
        config = {key: value for key, value in (additional_config or {}).items() if value is not None}
        for key in sorted(arg_dict.keys() & config.keys()):
            if key == "batch_size" and is_default_batch_size(config[key]):
                del config[key]
            else:
                hint = ": lm-eval's command has --device cuda:0 unless another is given there" if key == "device" else ""
                raise BadOptionError(f"{key} is given twice, in the model arguments and beside them{hint}")
        choose = "batch_size" not in arg_dict and is_default_batch_size(config.get("batch_size", 1))
        lm = cls(**config, **arg_dict)
        if choose:
            lm.batch_size_per_gpu = default_batch_size(sum(parameter.numel() for parameter in lm.model.parameters()))
            log.info("batch size %d, chosen for the size of the model; --batch_size overrides it", lm.batch_size_per_gpu)
        return lm

    @classmethod
    def create_from_arg_string(cls: type[Self], arg_string: str, additional_config: dict[str, Any] | None = None) -> Self:
        """As ``create_from_arg_obj``, from ``a=1,b=2``."""
        from lm_eval.utils import simple_parse_args_string

        return cls.create_from_arg_obj(simple_parse_args_string(arg_string), additional_config)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """As in lm-eval, but an error of one line before the first prompt, if there is no template."""
        check_chat_template(self.tokenizer, chat_template)
        template: str | None = super().chat_template(chat_template)
        return template

    def compare_anew(self) -> None:
        """Compares answers to shared prompts with lm-eval's again, as after loading: for other weights in the same model."""
        if self._shared_prompts is not None:
            self._shared_prompts = SharedPrompts(self)

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """As in lm-eval, but each text is encoded once, and with a fast tokenizer many at a time."""
        requests = list(requests)
        if self.backend == "causal" and is_stock(self.tokenizer):
            start = self.tokenizer.decode(self.prefix_token_id)  # lm-eval adds no special tokens to such a text
            self._encoded_texts.expect(text for text in texts_of(request.args for request in requests) if not text.startswith(start))
        try:
            answers: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=disable_tqdm)
        finally:
            self._encoded_texts.clear()
        return answers

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, left_truncate_len: int | None = None, **others: Any
    ) -> list[int]:
        """As in lm-eval."""
        expected = self._encoded_texts.of(string) if add_special_tokens is None and not left_truncate_len and not others else None
        if expected is not None:
            return expected
        ids: list[int] = super().tok_encode(string, add_special_tokens, left_truncate_len, **others)
        return ids

    def _encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        special = {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
        ids: list[list[int]] = self.tokenizer(list(texts), return_attention_mask=False, return_token_type_ids=False, **special)["input_ids"]
        return ids

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """As in lm-eval, but the choices of a prompt share its forward pass."""

        self._encoded_texts.clear()

        def stock(rest: list[Request], size: int | None = None) -> list[tuple[float, bool]]:
            answers: list[tuple[float, bool]] = super(PrunedHFLM, self)._loglikelihood_tokens(rest, disable_tqdm, override_bs or size)
            return answers

        if self._shared_prompts is None:
            return stock(requests)
        batch_size = self.batch_size if isinstance(self.batch_size, int) else override_bs
        return self._shared_prompts.answer(requests, stock, batch_size=batch_size, disable_bar=disable_tqdm)

    def set_cache_hook(self, cache_hook: Any) -> None:
        """As in lm-eval, but each fingerprint has its own answers in a file of ``--use_cache``."""
        super().set_cache_hook(cache_hook)
        if getattr(cache_hook, "dbdict", None) is not None:
            separate(cache_hook.dbdict, table_name(self.pruning_record["fingerprint"], self._decisive_arguments))

    def get_model_info(self) -> dict[str, Any]:
        """The information of lm-eval, the pruning record and, on lm-eval's command line, the command. All are written to results.json."""
        typed = typed_command(ranks.count())
        return {**super().get_model_info(), "pruning": self.pruning_record, **({"command": str(typed)} if typed else {})}


def _not_loaded(pretrained: str, error: Exception) -> BadOptionError:
    return BadOptionError(
        f"pretrained={shown(pretrained)}: cannot be loaded: {one_line(error)}{did_you_mean(pretrained, Plugins().models.items)}"
    )
