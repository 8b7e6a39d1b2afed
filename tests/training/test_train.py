"""The training program, for a few steps on a few scenes."""

import pytest
import torch

from training import scene_store, train
from training.scenes import draw_scene
from workflow_blocks.moondream2.runtime import Query, Runtime


@pytest.fixture
def run_training(tmp_path, monkeypatch):
    monkeypatch.setattr(scene_store, "SHARD_SCENES", 12)

    def run():
        train.main(folder=tmp_path / "runs", output=tmp_path / "package", shards=1, scale=0.001)

    return run


def test_training_writes_a_package_that_detects(run_training, tmp_path):
    run_training()

    detector = Runtime.from_folder(tmp_path / "package")
    (image,) = detector.encode_images([draw_scene(0).image])
    (objects,) = detector.detect([Query(image, "red circle")], 3)
    assert len(objects) <= 3


def test_a_finished_training_is_not_done_again(run_training, tmp_path):
    run_training()
    checkpoint = tmp_path / "runs" / "joint.pt"
    written = checkpoint.stat().st_mtime_ns
    first = (tmp_path / "package" / "model.safetensors").read_bytes()

    run_training()

    assert checkpoint.stat().st_mtime_ns == written
    assert (tmp_path / "package" / "model.safetensors").read_bytes() == first


def test_a_resumed_stage_ends_as_one_that_was_never_stopped(run_training, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
    run_training()
    whole = torch.load(tmp_path / "runs" / "encoder.pt", weights_only=True)
    (tmp_path / "runs" / "encoder.pt").unlink()
    save = train._save

    def save_and_stop(path, trainee, optimizers, step):
        save(path, trainee, optimizers, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run_training()
    monkeypatch.setattr(train, "_save", save)
    run_training()

    resumed = torch.load(tmp_path / "runs" / "encoder.pt", weights_only=True)
    torch.testing.assert_close(resumed["trainee"], whole["trainee"])
