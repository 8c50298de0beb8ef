"""Virtual environments with what our distribution requires, and without it."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
THIRD_PARTY = ROOT / "tests" / "third_party"
BUILD = ("hatchling", "pip")  # what installs from a checkout without a network
TASKS = ("arc",)  # of the 228 folders of lm-eval's tasks, which each of its commands would read for seconds
# TQDM_DISABLE is set by the sweep command, which other tests run in this process.
VARIABLES = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__", "TQDM_DISABLE")
SETTINGS = {
    "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "200",
    "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_CONFIG_FILE": os.devnull, "PIP_NO_INPUT": "1",
}  # fmt: skip


class Environment:
    """A virtual environment in ``folder``. It has a site directory of its own, so that .pth files are read as in any other.

    What our distribution requires, without its extras, is not installed anew: links lie in another folder, which a .pth file names. pip
    sees it as installed, and as none of this environment's business. lm-eval has few of its tasks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, symlinks=os.name != "nt", with_pip=find_spec("pip") is None)
        self.programs = folder / ("Scripts" if os.name == "nt" else "bin")
        self.python = self.programs / "python"
        self.home = folder / "home"
        self.home.mkdir()
        self.site = Path(self.json("import json, sysconfig; print(json.dumps(sysconfig.get_path('purelib')))"))
        links = folder / "dependencies"
        links.mkdir()
        for path in _required():
            (links / path.name).symlink_to(path)
        _take_tasks_away(links / "lm_eval")
        (self.site / "dependencies.pth").write_text(f"{links}\n", encoding="utf-8")
        self._add_command("lm_eval", "lm_eval")
        self.before = self.files()

    def _add_command(self, distribution_name: str, command: str) -> None:
        """Writes a console script, as pip does at the installation of the distribution."""
        points = distribution(distribution_name).entry_points
        module, _, function = next(p.value for p in points if p.group == "console_scripts" and p.name == command).partition(":")
        script = self.programs / command
        script.write_text(f"#!{self.python}\nimport sys\nfrom {module} import {function}\nsys.exit({function}())\n", encoding="utf-8")
        script.chmod(0o755)

    def files(self) -> set[str]:
        """The files in the site directory and among the programs."""
        return {str(path.relative_to(self.folder)) for top in (self.site, self.programs) for path in top.rglob("*")}

    def run(self, *command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs one of the environment's programs somewhere else than in the checkout."""
        program, *arguments = map(str, command)
        variables = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        variables |= SETTINGS | {
            "HOME": str(self.home),
            "HF_HOME": str(self.home),
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
        }
        result = subprocess.run(
            [str(self.programs / program), *arguments],
            cwd=self.home,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        if check and result.returncode:
            raise AssertionError(f"{program} exited with {result.returncode}:\n{result.stdout}\n{result.stderr}")
        return result

    def json(self, code: str) -> Any:
        """Runs Python code that prints JSON."""
        return json.loads(self.run("python", "-c", code).stdout)

    def pip(self, *arguments: str | Path) -> None:
        self.run("python", "-m", "pip", "--quiet", *arguments)


def build(target: str, source: Path, folder: Path) -> Path:
    """Builds the ``wheel`` or the ``sdist`` of a project into an empty folder, with the hatchling of this interpreter."""
    folder.mkdir(parents=True)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)],
        cwd=source,
        check=True,
        capture_output=True,
        timeout=600,
    )
    (artifact,) = folder.iterdir()
    return artifact


def start_up_seconds(python: str | Path, site: str | Path, times: int = 15) -> float:
    """What the start-up line of our package costs a Python that does not use it: the least of several fresh processes."""
    code = (
        "import sys, time\n"
        "site, line = sys.argv[1:]\n"
        "sys.path.append(site)\n"
        "begin = time.perf_counter()\n"
        "exec(line)\n"
        "print(time.perf_counter() - begin, 'harness_ext.autoload' in sys.modules)\n"
    )
    line = (Path(site) / "harness_ext_autoload.pth").read_text(encoding="utf-8")
    command = [str(python), "-I", "-S", "-c", code, str(site), line]
    results = [subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.split() for _ in range(times)]
    assert all(loaded == "True" for _, loaded in results)
    return min(float(seconds) for seconds, _ in results)


@functools.cache
def _required() -> tuple[Path, ...]:
    """The folders and files, in the site directory of this interpreter, of all that our distribution requires."""
    site, found = Path(sysconfig.get_path("purelib")), set()
    for name in sorted(_closure(["lm-eval-pruned", *BUILD]) - {"lm-eval-pruned"}):
        tops = {file.parts[0] for file in distribution(name).files or []} - {"..", "__pycache__"}
        found |= {path for top in tops if (path := site / top).exists() and path.suffix != ".pth"}
    return tuple(sorted(found))


def _closure(names: list[str]) -> set[str]:
    """The distributions with these names and all that they require, as far as they are installed."""
    waiting, seen = [Requirement(name) for name in names], set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (key := (canonicalize_name(wanted.name), extra)) not in seen and _is_installed(wanted.name):
                seen.add(key)
                waiting += _requirements(wanted.name, extra)
    return {name for name, _ in seen}


def _is_installed(name: str) -> bool:
    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return False


def _requirements(name: str, extra: str) -> list[Requirement]:
    found = map(Requirement, distribution(name).requires or [])
    return [requirement for requirement in found if requirement.marker is None or requirement.marker.evaluate({"extra": extra})]


def _take_tasks_away(package: Path) -> None:
    """Puts a folder in the place of a link to lm-eval, with all of it but most tasks."""
    original = package.resolve()
    package.unlink()
    tasks = package / "tasks"
    tasks.mkdir(parents=True)
    for path in original.iterdir():
        if path.name not in ("tasks", "__pycache__"):
            (package / path.name).symlink_to(path)
    for path in (original / "tasks").glob("*.py"):
        (tasks / path.name).symlink_to(path)
    for name in TASKS:
        shutil.copytree(original / "tasks" / name, tasks / name)
