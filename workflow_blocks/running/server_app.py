"""Inference's ASGI application with this plugin registered before any model is loaded.

    uvicorn workflow_blocks.running.server_app:app

In Inference's Docker images it is the image's own application, otherwise that of `workflow-blocks serve`.
Settings stay as they are: `WORKFLOWS_PLUGINS=workflow_blocks` must be set for the blocks.
"""

from importlib import import_module
from importlib.util import find_spec

from workflow_blocks.inference_host.registry import register
from workflow_blocks.running.server import make_app

# The modules that make the application in Inference's Docker images; each image has one.
IMAGE_MODULES = ("gpu_http", "cpu_http")

register()
_image_module = next((name for name in IMAGE_MODULES if find_spec(name) is not None), None)
app = make_app() if _image_module is None else import_module(_image_module).app
