"""Builds ``lm_eval`` command lines. lm-eval's own parser reads them back as the same arguments."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness_ext.host.registration import MODEL, is_command

MAPPINGS = ("model_args", "gen_kwargs", "metadata")
FLAGS = ("predict_only", "trust_remote_code", "confirm_run_unsafe_code")
ARGUMENTS = (
    "model", "model_args", "tasks", "include_path", "metadata", "num_fewshot", "apply_chat_template", "fewshot_as_multiturn",
    "system_instruction", "gen_kwargs", "limit", "samples", "batch_size", "max_batch_size", "device", "seed", *FLAGS,
)  # fmt: skip
"""The arguments of ``lm_eval`` that can change a score, in the order of a command line."""
SEED_NAMES = ("random_seed", "numpy_seed", "torch_seed", "fewshot_seed")  # what results call them
SEEDS = (0, 1234, 1234, 1234)  # lm-eval's defaults for Python, NumPy, torch and few-shot examples
PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
PLAIN_TEXT = re.compile(r"(?:[A-Za-z_/~*]|\.{1,2}/)[A-Za-z0-9_./:@+~*-]*|[0-9]+:[0-9]+")
SPECIAL_TEXTS = ("true", "false", "none", "nan", "inf", "infinity")


class Command(NamedTuple):
    """A command line.

    Args:
        words: arguments as the shell passes them to the program.
        lacks: descriptions of what the command line cannot express.
    """

    words: tuple[str, ...]
    lacks: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A line for a shell. What it lacks is in a comment."""
        return shlex.join(self.words) + (f"  # lacks {'; '.join(self.lacks)}" if self.lacks else "")


def lm_eval_command(arguments: Mapping[str, Any], *, processes: int = 1, lacks: Iterable[str] = ()) -> Command:
    """The command line of ``lm_eval`` with these arguments.

    Args:
        arguments: values by the names in :data:`ARGUMENTS`. ``model_args``, ``gen_kwargs`` and ``metadata`` are mappings; ``tasks``,
            ``include_path`` and ``seed`` are lists. Arguments that are None, empty or False are left out.
        processes: number of processes. Several are started by ``accelerate launch``.
        lacks: descriptions of what the caller knows to be missing.

    Raises:
        KeyError: an argument is not in :data:`ARGUMENTS`.
    """
    if unknown := set(arguments) - set(ARGUMENTS):
        raise KeyError(f"no arguments of lm_eval that change a score: {', '.join(sorted(unknown))}")
    launch = ("accelerate", "launch", "--num_processes", str(processes), "-m") if processes > 1 else ()
    words, missing = [*launch, "lm_eval", "--model", str(arguments.get("model") or MODEL)], list(lacks)
    for name in ARGUMENTS[1:]:
        value = arguments.get(name)
        if value is None or value in ({}, [], (), "") or (value is False and name != "fewshot_as_multiturn"):
            continue
        if name in FLAGS or (name == "apply_chat_template" and value is True):
            words.append(f"--{name}")
        elif text := _text(name, value, missing):
            words += [f"--{name}={text}"] if text.startswith("-") else [f"--{name}", text]
    return Command(tuple(words), tuple(dict.fromkeys(missing)))


def typed_command(processes: int = 1) -> Command | None:
    """The command line of this process, if it is ``lm_eval``.

    Arguments that change no score, such as ``--output_path``, are left out. The arguments of a ``--config`` file are written out.
    """
    from lm_eval.config.evaluate_config import EvaluatorConfig

    typed = _read_back() if is_command(sys.argv) else {}
    if typed.get("command") != "run":
        return None
    arguments = EvaluatorConfig.load_yaml_config(typed["config"]) if typed.get("config") else {}
    arguments |= {name: value for name, value in typed.items() if value or value == 0}  # as EvaluatorConfig.from_cli
    return lm_eval_command(_as_values({name: arguments[name] for name in ARGUMENTS if name in arguments}), processes=processes)


def _read_back() -> dict[str, Any]:
    """The arguments of this process, read by lm-eval's parser. Empty if another program is called lm_eval."""
    from lm_eval._cli.harness import HarnessCLI

    words = list(sys.argv)
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            arguments: dict[str, Any] = vars(HarnessCLI().parse_args())
            return arguments
    except (SystemExit, ValueError):
        return {}
    finally:
        sys.argv[:] = words  # the parser inserts the name of a command


def _as_values(arguments: dict[str, Any]) -> dict[str, Any]:
    """Parses the strings that a YAML file may have instead of mappings and lists."""
    from lm_eval.utils import simple_parse_args_string

    values = {name: simple_parse_args_string(value) if name in MAPPINGS and isinstance(value, str) else value
              for name, value in arguments.items()}  # fmt: skip
    if isinstance(values.get("tasks"), str):
        values["tasks"] = values["tasks"].split(",")
    if isinstance(values.get("seed"), int):
        values["seed"] = [values["seed"]] * len(SEEDS)
    return values


def _text(name: str, value: Any, lacks: list[str]) -> str | None:
    """The value as a word of the command line, or None to leave the argument out. What cannot be expressed is added to ``lacks``."""
    text: str | None = str(value).lower() if isinstance(value, bool) else str(value)
    if name in MAPPINGS:
        text = _mapping(value)
    elif name == "tasks":
        text = _tasks(value, lacks)
    elif name == "include_path" and not isinstance(value, str | Path):
        text, *others = map(str, value)
        lacks += [f"--include_path {folder} (lm_eval takes one folder)" for folder in others]
    elif name == "seed":
        text = None if tuple(value) == SEEDS else ",".join(map(str, value))
    elif name == "samples" and not isinstance(value, str):
        text = json.dumps(value)
    elif name == "limit":
        text = str(int(value)) if float(value).is_integer() else repr(float(value))
    return text


def _tasks(tasks: Sequence[Any], lacks: list[str]) -> str | None:
    """Names of tasks, joined by commas. Names with a comma and tasks that are mappings cannot be written on a command line."""
    names = [task for task in tasks if isinstance(task, str) and "," not in task]
    lacks += [f"the task {task!r}" for task in tasks if task not in names]
    return ",".join(names) or None


def _mapping(values: Mapping[str, Any]) -> str:
    """``a=1,b=text`` if lm-eval reads the same values from it, and a JSON object otherwise."""
    if all(PLAIN_NAME.fullmatch(name) and _is_plain(value) for name, value in values.items()):
        return ",".join(f"{name}={value}" for name, value in values.items())
    return json.dumps(dict(values), ensure_ascii=False, default=str)


def _is_plain(value: Any) -> bool:
    """Whether lm-eval reads the same value from its text. Strings that look like Python values are read as these values."""
    if isinstance(value, str):
        return bool(PLAIN_TEXT.fullmatch(value)) and value.lower() not in SPECIAL_TEXTS
    return value is None or isinstance(value, bool | float) or (isinstance(value, int) and value >= 0)
