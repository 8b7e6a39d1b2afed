"""`python -m workflow_blocks` is the command `workflow-blocks`."""

from workflow_blocks.commands.app import app

if __name__ == "__main__":
    app()
