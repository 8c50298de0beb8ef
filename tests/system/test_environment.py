"""What lm-eval records about the machine, without git's complaint, and in a sweep asked for once."""

from __future__ import annotations

import os
import subprocess

from lm_eval import evaluator
from lm_eval.loggers import utils

from harness_ext.host.environment import environment_asked_once, quieten_git


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
