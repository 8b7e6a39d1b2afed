"""Runs functions after modules were imported, without importing them."""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

Action = Callable[[ModuleType], None]


class _Finder(MetaPathFinder):
    """Finds modules as the other finders do, and lets an action follow their import."""

    def __init__(self) -> None:
        self.actions: dict[str, Action] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        action = self.actions.get(fullname)
        spec = None if action is None else self._spec_of_others(fullname, path, target)
        if action is not None and spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_act(module: ModuleType) -> None:
                execute(module)
                action(module)

            spec.loader.exec_module = execute_and_act  # type: ignore[method-assign]
        return spec

    def _spec_of_others(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        return next((spec for spec in specs if spec is not None), None)


_FINDER = _Finder()


def after_import(module: str, action: Action) -> None:
    """Calls `action` with the module: now if it was imported already, else right after its import.

    Args:
        module: its full name.
        action: may be called several times, so a second call must change nothing.
    """
    _FINDER.actions[module] = action
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)
    if module in sys.modules:
        action(importlib.import_module(module))  # waits if another thread is importing it
