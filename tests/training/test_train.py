"""The training program, for a few steps on a few scenes."""

import shutil

import pytest
import torch

from training import scene_store, train
from training.scenes import draw_scene
from workflow_blocks.moondream2.runtime import Query, Runtime


def run_training(folder):
    train.main(folder=folder / "runs", output=folder / "package", shards=1, scale=0.001)


@pytest.fixture(scope="module", autouse=True)
def _few_scenes():
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(scene_store, "SHARD_SCENES", 12)
        monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a finished training."""
    folder = tmp_path_factory.mktemp("training")
    run_training(folder)
    return folder


@pytest.fixture
def trained(finished, tmp_path):
    """A copy of it."""
    return shutil.copytree(finished, tmp_path / "training")


def test_training_writes_a_package_that_detects_as_the_trained_model_does(trained):
    trainee = train.Trainee()
    trainee.load_state_dict(torch.load(trained / "runs" / "polish.pt", weights_only=True)["trainee"])
    packed = Runtime.from_folder(trained / "package")
    # Packages store float16.
    own = Runtime(trainee.model.half().float().eval(), packed.tokenizer)

    images = [draw_scene(seed).image for seed in range(4)]
    answers = []
    for detector in (own, packed):
        encoded = detector.encode_images(images)
        found = detector.detect([Query(image, "shape") for image in encoded], 3)
        answers.append(([image.prefix for image in encoded], found))

    (own_prefixes, own_found), (prefixes, found) = answers
    torch.testing.assert_close(prefixes, own_prefixes)
    assert found == own_found


def test_training_teaches_every_part(trained):
    torch.manual_seed(train.SEED)
    before = train.Trainee().state_dict()
    after = torch.load(trained / "runs" / "polish.pt", weights_only=True)["trainee"]

    same = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}

    assert same == {"model.region.coord_features", "model.region.size_features"}  # they are random and stay


def test_a_finished_training_is_not_repeated(trained):
    checkpoint = trained / "runs" / "joint.pt"
    written = checkpoint.stat().st_mtime_ns
    first = (trained / "package" / "model.safetensors").read_bytes()

    run_training(trained)

    assert checkpoint.stat().st_mtime_ns == written
    assert (trained / "package" / "model.safetensors").read_bytes() == first


def test_a_resumed_stage_ends_like_an_uninterrupted_one(trained, monkeypatch):
    whole = torch.load(trained / "runs" / "encoder.pt", weights_only=True)
    (trained / "runs" / "encoder.pt").unlink()
    save = train._save

    def save_and_stop(path, trainee, optimizers, step):
        save(path, trainee, optimizers, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run_training(trained)
    stopped = torch.load(trained / "runs" / "encoder.pt", weights_only=True)
    monkeypatch.setattr(train, "_save", save)
    run_training(trained)

    resumed = torch.load(trained / "runs" / "encoder.pt", weights_only=True)
    assert stopped["step"] < resumed["step"] == whole["step"]
    torch.testing.assert_close(resumed["trainee"], whole["trainee"])
