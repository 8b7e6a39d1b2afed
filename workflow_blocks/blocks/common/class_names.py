"""The class names of detections."""

import supervision as sv

from workflow_blocks.blocks.common.client_errors import InvalidInputError

CLASS_NAME_KEY = "class_name"


def class_names_of(detections: sv.Detections) -> list[str]:
    """A name for each detection.

    Raises:
        InvalidInputError: the detections have no class names.
    """
    if not len(detections):
        return []
    names = detections.data.get(CLASS_NAME_KEY)
    if names is None or any(name is None or isinstance(name, float) for name in names):  # NaN
        raise InvalidInputError(
            f"`predictions` holds detections without `{CLASS_NAME_KEY}`; give the output of a detection "
            "step, with a name for each detection"
        )
    return [str(name) for name in names]
