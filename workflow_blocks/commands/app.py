"""The command `workflow-blocks`: each of its commands lies in a file of its own beside this one."""

import typer

from workflow_blocks.commands.benchmark import benchmark
from workflow_blocks.commands.build_model import build_model
from workflow_blocks.commands.compare import compare
from workflow_blocks.commands.demo import demo
from workflow_blocks.commands.evaluate import evaluate
from workflow_blocks.commands.export_dataset import export_dataset
from workflow_blocks.commands.messages import hide_warnings_of_libraries
from workflow_blocks.commands.run import run
from workflow_blocks.commands.run_cluster import run_cluster
from workflow_blocks.commands.serve import serve

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Moondream2 for Roboflow Workflows.",
    callback=hide_warnings_of_libraries,
)
# All take the workflow's own parameters, and list them in their help.
for command in (demo, run, run_cluster):
    app.command(
        add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
    )(command)
app.command()(serve)
app.command()(build_model)
app.command()(compare)
app.command()(benchmark)
app.command()(export_dataset)
# Takes the parameters of the workflow that it evaluates.
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(evaluate)
