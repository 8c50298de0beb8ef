"""Makes the stock ``lm_eval`` command know our model and our tasks.

lm-eval 0.4.13 has no entry points for plugins. ``harness_ext_autoload.pth`` imports this module at every start of Python, so it uses
built-in modules alone and does next to nothing; whatever it raises, the line in the .pth file swallows. It waits for three modules of
lm-eval to be imported and then calls ``harness_ext.host.registration``; errors in there belong to lm-eval's run and are shown.
"""

import sys
from _thread import get_ident

WATCHED = {
    "lm_eval.models": "models_imported",
    "lm_eval.tasks.manager": "tasks_imported",
    "lm_eval.config.evaluate_config": "command_line_imported",
}


class Finder:
    """A meta-path finder that leaves the finding of the watched modules to the others, and puts our loader around theirs."""

    def __init__(self):
        self.finding = set()

    def find_spec(self, name, path=None, target=None):
        if name not in WATCHED:
            return None
        call = get_ident(), name
        if call in self.finding:  # another finder asks all the others, as we do
            return None
        self.finding.add(call)
        try:
            spec = _first_spec(self, name, path, target)
        finally:
            self.finding.discard(call)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = Loader(spec.loader, name)
        return spec


class Loader:
    """Hands the module back to its own loader, has it executed, and registers us. The module shows no trace of it afterwards."""

    def __init__(self, loader, name):
        self.loader = loader
        self.name = name

    def __getattr__(self, name):
        if name == "loader":  # not set yet, as in a copy
            raise AttributeError(name)
        return getattr(self.loader, name)

    def exec_module(self, module):
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _register(self.name)


def install():
    """Puts the finder in place, once, and registers us where lm-eval was imported before; safe to call again."""
    if not any(type(finder).__name__ == "Finder" and type(finder).__module__ == __name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
    for name in WATCHED:
        if name in sys.modules:
            _register(name)


def _first_spec(asking, name, path, target):
    for finder in sys.meta_path:
        find_spec = getattr(finder, "find_spec", None)
        if finder is not asking and find_spec is not None:
            spec = find_spec(name, path, target)
            if spec is not None:
                return spec
    return None


def _register(name):
    from harness_ext.host import registration

    getattr(registration, WATCHED[name])()


install()
