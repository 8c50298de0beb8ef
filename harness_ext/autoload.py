"""Makes the stock ``lm_eval`` command know our model and our tasks.

lm-eval 0.4.13 has no entry points for plugins. ``harness_ext_autoload.pth`` imports this module at every start of Python, so it uses
the standard library alone, does next to nothing, and never raises. It waits for two modules of lm-eval to be imported and then calls
``harness_ext.registration``; errors in there belong to lm-eval's run and are shown.
"""

import sys

WATCHED = {"lm_eval.models": "models_imported", "lm_eval.tasks.manager": "tasks_imported"}


class Finder:
    """A meta-path finder that lets the next finders find, and runs our registration after the module was executed."""

    def __init__(self):
        self.finding = set()

    def find_spec(self, name, path=None, target=None):
        if name not in WATCHED or name in self.finding:
            return None
        from importlib.util import find_spec

        self.finding.add(name)
        try:
            spec = find_spec(name)
        finally:
            self.finding.discard(name)
        if spec is not None and spec.loader is not None:
            _chain(spec.loader, name)
        return spec


def _chain(loader, name):
    execute = loader.exec_module

    def exec_module(module):
        execute(module)
        from harness_ext import registration

        getattr(registration, WATCHED[name])()

    loader.exec_module = exec_module


def install():
    """Puts the finder in place, once; safe to call again."""
    if not any(type(finder).__name__ == "Finder" and type(finder).__module__ == __name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())


# Whatever goes wrong here must not break a Python that has nothing to do with us; contextlib would be one more import at every start.
try:  # noqa: SIM105
    install()
except Exception:
    pass
