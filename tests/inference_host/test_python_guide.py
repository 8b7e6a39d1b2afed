"""The code of `docs/python.md`, run as it is written there."""

import re
import shutil
from pathlib import Path

import pytest

from tests.stand_ins import GOLDEN, checkpoint_with_text
from training.labelled_scenes import main as draw_labelled_scenes
from workflow_blocks.inference_host.model_package import write_package_files

GUIDE = (Path(__file__).parents[2] / "docs" / "python.md").read_text()


def test_the_guide_runs_from_its_first_to_its_last_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_package").mkdir()
    write_package_files(checkpoint_with_text(tmp_path / "my_package"))
    shutil.copy(GOLDEN / "images" / "0_300x200.png", tmp_path / "photo.jpg")
    draw_labelled_scenes(tmp_path / "shapes", labelled=2, unlabelled=1)
    (tmp_path / "shapes" / "unlabelled").rename(tmp_path / "my_folder")
    code = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL))

    exec(compile(code, "docs/python.md", "exec"), {})

    printed = capsys.readouterr().out
    assert printed.count("1 done, 0 failed") == 1  # the run's summary
    assert "'confidence': {'circle': " in printed
    assert list((tmp_path / "results" / "labels" / "dataset").glob("*/_annotations.coco.json"))
    assert "'runtime': 'workflow_blocks'" in printed
    scores = re.search(r"\{'yes': ([0-9.e-]+), 'no': ([0-9.e-]+)\}", printed)
    assert scores is not None
    assert float(scores[1]) + float(scores[2]) == pytest.approx(1)
