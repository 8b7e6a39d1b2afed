"""What `--help` shows."""

import pytest
from typer.testing import CliRunner

from workflow_blocks.commands.app import app
from workflow_blocks.running.definitions import read_definition, workflow_names
from workflow_blocks.running.parameters import parameter_inputs

COMMANDS = [
    "demo",
    "run",
    "run-cluster",
    "serve",
    "build-model",
    "compare",
    "benchmark",
    "evaluate",
    "export-dataset",
]


def help_of(*arguments):
    result = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_no_default_is_shown_as_none(command):
    text = help_of(command)

    assert "Options" in text
    assert "None" not in text


@pytest.mark.parametrize("command", ["", *COMMANDS, "run redact_by_prompt"])
def test_help_is_not_cut_on_a_terminal_of_80_columns(command):
    result = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "80"})

    assert result.exit_code == 0
    assert "…" not in result.output


def test_the_help_of_run_lists_the_definitions():
    lines = help_of("run").splitlines()

    for name in workflow_names():
        assert any(line.strip("│ ") == name for line in lines), name


@pytest.mark.parametrize("name", workflow_names())
def test_the_help_of_a_definition_lists_its_parameters(name):
    text = help_of("run", name)

    definition = read_definition(name)
    inputs = parameter_inputs(definition)
    assert inputs
    for parameter in inputs:
        assert f"--{parameter} " in text
    for output in definition["outputs"]:
        assert output["name"] in text


def test_the_help_shows_defaults_as_one_types_them():
    text = help_of("run", "count_by_prompt")

    assert "[default: car elephant]" in text
    assert "[default: moondream2-demo]" in text


def test_the_help_of_demo_shows_its_own_defaults():
    text = help_of("demo")

    assert 'car elephant "soccer ball" "wine glass"' in text
    assert "[default: demo_output/dataset]" in text


def test_an_unknown_workflow_has_no_help():
    result = CliRunner().invoke(app, ["run", "no_such", "--help"])

    assert result.exit_code == 1
    assert "no workflow no_such" in result.output
    assert "Usage" not in result.output


def test_run_without_a_workflow_says_where_they_are_listed():
    result = CliRunner().invoke(app, ["run"])

    assert result.exit_code == 1
    assert "workflow-blocks run --help" in result.output
