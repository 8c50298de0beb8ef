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
SEEDS = (0, 1234, 1234, 1234)  # lm-eval's defaults for Python, NumPy, torch and few-shot examples
PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
PLAIN_TEXT = re.compile(r"(?:[A-Za-z_/~*]|\.{1,2}/)[A-Za-z0-9_./:@+~*-]*|[0-9]+:[0-9]+")
SPECIAL_TEXTS = ("true", "false", "none", "nan", "inf", "infinity")


class Command(NamedTuple):
    """A command line.

    Args:
        words: as the shell gives them to the program.
        lacks: what the command line cannot say, for people.
    """

    words: tuple[str, ...]
    lacks: tuple[str, ...] = ()

    def __str__(self) -> str:
        """A line for a shell; what it lacks stands in a comment."""
        return shlex.join(self.words) + (f"  # lacks {'; '.join(self.lacks)}" if self.lacks else "")


def lm_eval_command(arguments: Mapping[str, Any], *, processes: int = 1, lacks: Iterable[str] = ()) -> Command:
    """The command line of ``lm_eval`` with these arguments.

    Args:
        arguments: by the names in :data:`ARGUMENTS`, as values: ``model_args``, ``gen_kwargs`` and ``metadata`` as mappings, ``tasks``,
            ``include_path`` and ``seed`` as lists. Arguments that are None, empty or False are left out.
        processes: more than one are started by ``accelerate launch``.
        lacks: what the caller knows to be missing.

    Raises:
        KeyError: an argument that is not in :data:`ARGUMENTS`.
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
    """The command line that this process was started with, if it is ``lm_eval``: without what changes no score, such as
    ``--output_path``, and with the arguments of a ``--config`` file written out."""
    from lm_eval.config.evaluate_config import EvaluatorConfig

    typed = _read_back() if is_command(sys.argv) else {}
    if typed.get("command") != "run":
        return None
    arguments = EvaluatorConfig.load_yaml_config(typed["config"]) if typed.get("config") else {}
    arguments |= {name: value for name, value in typed.items() if value or value == 0}  # as EvaluatorConfig.from_cli
    return lm_eval_command(_as_values({name: arguments[name] for name in ARGUMENTS if name in arguments}), processes=processes)


def _read_back() -> dict[str, Any]:
    """What lm-eval's parser reads in the arguments of this process; nothing if they are of another program that is called lm_eval."""
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
    """Reads the texts that a YAML file may have in the place of mappings and lists."""
    from lm_eval.utils import simple_parse_args_string

    values = {name: simple_parse_args_string(value) if name in MAPPINGS and isinstance(value, str) else value
              for name, value in arguments.items()}  # fmt: skip
    if isinstance(values.get("tasks"), str):
        values["tasks"] = values["tasks"].split(",")
    if isinstance(values.get("seed"), int):
        values["seed"] = [values["seed"]] * len(SEEDS)
    return values


def _text(name: str, value: Any, lacks: list[str]) -> str | None:
    """The value as a word; None if nothing is to be written. What cannot be written is added to ``lacks``."""
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
    """lm-eval cuts the names of tasks at commas, and takes a task that was given as a mapping in a YAML file alone."""
    names = [task for task in tasks if isinstance(task, str) and "," not in task]
    lacks += [f"the task {task!r}" for task in tasks if task not in names]
    return ",".join(names) or None


def _mapping(values: Mapping[str, Any]) -> str:
    """``a=1,b=text`` where lm-eval reads the same values in it, and a JSON object otherwise."""
    if all(PLAIN_NAME.fullmatch(name) and _is_plain(value) for name, value in values.items()):
        return ",".join(f"{name}={value}" for name, value in values.items())
    return json.dumps(dict(values), ensure_ascii=False, default=str)


def _is_plain(value: Any) -> bool:
    """Whether lm-eval reads the value in its text: it takes texts that look like Python values for these values."""
    if isinstance(value, str):
        return bool(PLAIN_TEXT.fullmatch(value)) and value.lower() not in SPECIAL_TEXTS
    return value is None or isinstance(value, bool | float) or (isinstance(value, int) and value >= 0)
