"""Actions follow the import of modules, whether it happens before or after."""

import subprocess
import sys

import pytest

from workflow_blocks.inference_host.after_import import after_import


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "imported_late.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "imported_late"
    sys.modules.pop("imported_late", None)


def double(module):
    if module.value == 1:
        module.value = 2


def test_a_module_that_is_imported_later_is_changed_then(module):
    after_import(module, double)
    after_import(module, double)

    assert module not in sys.modules
    assert __import__(module).value == 2


def test_a_module_that_was_imported_is_changed_now(module):
    imported = __import__(module)

    after_import(module, double)

    assert imported.value == 2


def test_a_module_that_does_not_exist_stays_missing():
    after_import("no_such_module_at_all", double)

    with pytest.raises(ModuleNotFoundError):
        __import__("no_such_module_at_all")


def test_registering_imports_nothing_heavy():
    code = (
        "import sys; "
        "from workflow_blocks.inference_host.registry import register; register(); register(); "
        "heavy = {'torch', 'inference', 'inference_models', 'numpy', 'pydantic'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
