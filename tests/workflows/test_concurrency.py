"""Many requests at once for one model."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tests.scenes import image_bgr
from tests.workflows.definitions import detection_workflow
from workflow_blocks.blocks.common.data_representation import from_engine
from workflow_blocks.inference_host.engine import make_engine, make_model_manager

N_REQUESTS = 8


def test_concurrent_requests_share_one_model_and_get_their_own_answers(golden_package, monkeypatch):
    from workflow_blocks.inference_host.model import Moondream2Model

    loaded = []
    from_pretrained = Moondream2Model.from_pretrained

    def counted(*arguments, **others):
        loaded.append(arguments)
        return from_pretrained(*arguments, **others)

    monkeypatch.setattr(Moondream2Model, "from_pretrained", counted)
    manager = make_model_manager()
    # The golden model finds something without end.
    definition = detection_workflow(model_version=str(golden_package), max_detections=4)

    engines = [make_engine(definition, manager) for _ in range(N_REQUESTS)]

    def ask(number):
        (result,) = engines[number].run(
            runtime_parameters={"image": image_bgr(number % 4), "prompts": ["red circle", "dog"]}
        )
        return from_engine(result["predictions"], "test").xyxy

    with ThreadPoolExecutor(8) as clients:
        together = list(clients.map(ask, range(N_REQUESTS)))

    assert len(loaded) == 1
    for number, boxes in enumerate(together):
        np.testing.assert_allclose(boxes, ask(number), atol=1e-3)
