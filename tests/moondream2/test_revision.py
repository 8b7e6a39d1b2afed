"""Other architectures and older revisions are refused by reading what lies beside the weights."""

import json

import pytest

from workflow_blocks.moondream2.config import Moondream2Config
from workflow_blocks.moondream2.revision import RevisionError, check_revision

RELEASED = """
from dataclasses import dataclass, field
raise SystemExit("this file was run")

@dataclass(frozen=True)
class TokenizerConfig:
    bos_id: int = 0
    eos_id: int = 0
    answer_id: int = 3
    unknown_id: int = 12345
    templates: Dict = field(
        default_factory=lambda: {
            "caption": {
                "short": [1, 32708, 2, 12492, 3],
                "normal": [1, 32708, 2, 6382, 3],
                "long": [1, 32708, 2, 4059, 3],
            },
            "query": {"prefix": [1, 15381, 2], "suffix": [3]},
            "detect": {"prefix": [1, 7235, 476, 2], "suffix": [3]},
            "point": {"prefix": [1, 2581, 2], "suffix": [3]},
        }
    )
"""
OLDER = RELEASED.replace("bos_id: int = 0", "bos_id: int = 50256")
OTHER_TEMPLATES = RELEASED.replace("[1, 7235, 476, 2]", "[198, 198, 7235, 476, 25]")


def check(folder, code=None, **document):
    file = folder / "config.json"
    file.write_text(json.dumps(document))
    if code is not None:
        (folder / "config.py").write_text(code)
    check_revision(file, Moondream2Config.from_file(file))


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(None, id="no code"),
        pytest.param(RELEASED, id="released"),
        pytest.param("class VisionConfig:\n    bos_id = 50256", id="no token ids"),
        pytest.param("class TokenizerConfig:\n    bos_id: int = default()", id="not literal"),
    ],
)
@pytest.mark.parametrize("config", [{}, {"eos_id": 9}], ids=["defaults", "own ids"])
def test_the_released_revision_and_unknown_code_pass(tmp_path, code, config):
    check(tmp_path, code, architectures=["HfMoondream"], config={"tokenizer": config})


def test_templates_given_in_config_json_win(tmp_path):
    own = {"templates": {"detect": {"prefix": [1, 35, 36, 2], "suffix": [3]}}}

    check(tmp_path, RELEASED, config={"tokenizer": own})


@pytest.mark.parametrize(
    ("code", "named"),
    [
        pytest.param(OLDER, "bos_id 50256", id="older"),
        pytest.param("class TokenizerConfig:\n    eos_id = 50256", "eos_id 50256", id="plain assignment"),
        pytest.param(OTHER_TEMPLATES, "templates", id="templates"),
        pytest.param("class TokenizerConfig:\n  bos_id: int = (", "not a Python file", id="cut"),
        pytest.param("x = " + "(" * 10_000, "not a Python file", id="nested"),
    ],
)
def test_code_of_another_revision_is_refused(tmp_path, code, named):
    with pytest.raises(RevisionError, match=named):
        check(tmp_path, code, config={"tokenizer": {"bos_id": 0}})


@pytest.mark.parametrize("architectures", [["Florence2ForConditionalGeneration"], "Moondream", 5])
def test_another_architecture_is_refused(tmp_path, architectures):
    with pytest.raises(RevisionError, match="architecture"):
        check(tmp_path, architectures=architectures)
