"""What lm-eval records about the machine, without git's complaint and in a sweep asked for once; templates that are compiled once."""

from __future__ import annotations

import os
import subprocess

import pytest
from jinja2 import TemplateSyntaxError, UndefinedError
from lm_eval import evaluator
from lm_eval.loggers import utils

from harness_ext.host.environment import compile_templates_once, environment_asked_once, quieten_git


def test_git_does_not_complain_outside_of_a_repository(monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(evaluator, "get_git_commit_hash", utils.get_git_commit_hash)
    assert evaluator.get_git_commit_hash() is None
    assert "fatal" in capfd.readouterr().err
    quieten_git()
    quieten_git()
    assert evaluator.get_git_commit_hash() is None
    assert capfd.readouterr().err == ""
    os.write(2, b"still there")
    assert capfd.readouterr().err == "still there"


def test_the_commit_of_a_repository_is_still_found(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluator, "get_git_commit_hash", utils.get_git_commit_hash)
    author = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *author, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    expected = utils.get_git_commit_hash()
    quieten_git()
    assert expected
    assert evaluator.get_git_commit_hash() == expected


def test_the_machine_is_asked_once_and_lm_eval_is_left_as_it_was(monkeypatch):
    asked = []

    def ask(results):
        asked.append(results)
        results["pretty_env_info"] = "this one"

    monkeypatch.setattr(evaluator, "add_env_info", ask)
    for _ in range(2):
        results = {"a": 1}
        with environment_asked_once():
            evaluator.add_env_info(results)
        assert results == {"a": 1, "pretty_env_info": "this one"}
    assert len(asked) == 1
    assert evaluator.add_env_info is ask


def test_a_template_is_compiled_once_and_filled_in_each_time(monkeypatch):
    from lm_eval.utils import apply_template, env

    compiled = []
    stock = type(env).from_string

    def from_string(source, *more, **named):
        compiled.append(source)
        return stock(env, source, *more, **named)

    monkeypatch.setattr(env, "from_string", from_string)
    template = "{{question | regex_replace('o', '0')}} {% if last %}!{% endif %}"
    documents = [{"question": "one", "last": False}, {"question": "two", "last": True}]
    expected = [apply_template(template, document) for document in documents]
    assert compiled == [template] * 2
    compile_templates_once()
    compile_templates_once()
    assert [apply_template(template, document) for document in documents] == expected == ["0ne ", "tw0 !"]
    assert compiled == [template] * 3
    for _ in range(2):  # an error is not kept, and other arguments get a template of their own
        with pytest.raises(TemplateSyntaxError):
            apply_template("{{", documents[0])
    assert env.from_string("{{x}}", {"x": 1}).render() == "1"
    assert env.from_string("{{x}}", {"x": 2}).render() == "2"


def test_a_template_without_a_value_is_still_an_error():
    from lm_eval.utils import apply_template

    compile_templates_once()
    for _ in range(2):
        with pytest.raises(UndefinedError):
            apply_template("{{missing}}", {"other": 1})
