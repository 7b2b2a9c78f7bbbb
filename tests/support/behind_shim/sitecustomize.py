"""Puts the scripts of every process behind the shim that refuses undeclared keys.

Python imports a `sitecustomize` from PYTHONPATH at its start: a whole fleet (supervisor, Ray's
workers and all) runs so when this folder and `tests/support` are there, and no line of production
code knows. Nothing is imported that the process would not import by itself.
"""

import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder

_MODULE = "novawf.store.scripts"


class _Finder(MetaPathFinder):
    """Finds one module as everybody does, and loads it with the shim."""

    def find_spec(self, name, path, target=None):
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, real):
        self.real = real

    def create_module(self, spec):
        return self.real.create_module(spec)

    def exec_module(self, module):
        self.real.exec_module(module)
        from lua_shim import with_declared_keys  # from tests/support

        read = module.read_source
        module.read_source = lambda package, name: with_declared_keys(read(package, name))


sys.meta_path.insert(0, _Finder())
