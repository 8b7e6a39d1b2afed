"""What `--help` says about workflow definitions and their parameters."""

import json
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from workflow_blocks.running.definitions import workflow_names
from workflow_blocks.running.parameters import BATCH_INPUT, parameter_inputs, value_types


def definitions_panel() -> Panel:
    """The names of the bundled definitions."""
    lines = [*workflow_names(), "", "workflow-blocks run NAME --help lists the parameters of NAME."]
    return _panel("\n".join(lines), "Bundled workflow definitions")


def parameters_panel(definition: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Panel:
    """A definition's parameters and outputs; `defaults` override the definition's own."""
    grid = Table.grid(padding=(0, 2))
    for name, entry in parameter_inputs(definition).items():
        default = (defaults or {}).get(name, entry.get("default_value"))
        shown = "" if default is None else escape(f"[default: {_as_typed(default)}]")
        grid.add_row(f"[bold cyan]--{escape(name)}[/]", f"[yellow]{_form(entry)}[/]", f"[dim]{shown}[/]")
    outputs = ", ".join(entry["name"] for entry in definition.get("outputs", []))
    grid.add_row()
    grid.add_row("Outputs", "", escape(outputs))
    return _panel(grid, "Parameters of the workflow")


def _panel(content: Any, title: str) -> Panel:
    return Panel(content, title=title, title_align="left", border_style="dim")


def _form(entry: Mapping[str, Any]) -> str:
    """How the values of a parameter are written on the command line."""
    if entry["type"] == BATCH_INPUT:
        return '{"FILE": VALUE, ...}'
    types = value_types(entry)
    if list in types:
        return "VALUE..."
    return "VALUE" if str in types else "JSON"


def _as_typed(default: object) -> str:
    """A default as a user would type it."""
    values = default if isinstance(default, list) else [default]
    return " ".join(
        json.dumps(value, ensure_ascii=False) if _needs_quotes(value) else str(value) for value in values
    )


def _needs_quotes(value: object) -> bool:
    return not isinstance(value, str) or " " in value
