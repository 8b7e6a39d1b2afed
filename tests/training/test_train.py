"""The training program, for a few steps on a few pictures."""

import json
import shutil

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from training import checkpoints, evaluate_quickly, train
from training.pictures import draw_picture
from training.run_log import LOG, PICTURE, RunLog
from workflow_blocks.moondream2.runtime import Query, Question, Runtime

CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _small_and_without_icons(drawings):
    with pytest.MonkeyPatch.context() as monkeypatch:
        small = [
            train.Stage(one.name, 4, 3, one.learning_rate, one.fall, one.last_rate, 4) for one in train.STAGES
        ]
        for name, stage in zip(("ENCODER", "DECODER", "JOINT"), small, strict=True):
            monkeypatch.setattr(train, name, stage)
        monkeypatch.setattr(train, "STAGES", tuple(small))
        monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
        monkeypatch.setattr(train, "LOG_EVERY", 2)
        monkeypatch.setattr(train, "load_trained_drawings", lambda: [drawings])
        monkeypatch.setattr(train, "load_drawings", lambda icon_set: drawings)
        monkeypatch.setattr(evaluate_quickly, "_N_CROPS", 4)
        monkeypatch.setattr(evaluate_quickly, "_N_PICTURES", 1)
        yield


def run_training(folder, **options):
    defaults = {"device": "cpu", "threads": 2, "workers": 0, "scale": 1.0}
    options = defaults | {"from_package": None, "finish_minutes": None} | options
    train.main(folder=folder / "run", output=folder / "package", **options)


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


def states_of(folder):
    return checkpoints.load(folder / "run", CPU)["trainee"]


@pytest.mark.long
def test_training_writes_a_package_that_works_as_the_trained_model_does(trained, drawings):
    trainee = train.Trainee()
    trainee.load_state_dict(states_of(trained))
    packed = Runtime.from_folder(trained / "package")
    # Packages store float16.
    own = Runtime(trainee.model.half().float().eval(), packed.tokenizer)

    rng = np.random.default_rng(0)
    images = [draw_picture(rng, [drawings]).image for _ in range(3)]
    results = []
    for runtime in (own, packed):
        encoded = runtime.encode_images(images)
        boxes = runtime.detect([Query(image, "dog") for image in encoded], 3)
        points = runtime.point([Query(image, "dog") for image in encoded], 3)
        questions = [Question(image, "what is this?", [(0.1, 0.1, 0.5, 0.5)]) for image in encoded]
        choices = runtime.score_choices(questions, [["dog", "cat"]] * 3)
        captions = [runtime.caption(encoded, length) for length in ("short", "normal", "long")]
        results.append((boxes, points, choices, captions))

    assert results[0] == results[1]


@pytest.mark.long
def test_training_teaches_every_part(trained):
    torch.manual_seed(train.SEED)
    before = train.Trainee().state_dict()
    after = states_of(trained)

    same = {name for name, tensor in before.items() if torch.equal(tensor, after[name])}

    assert same == {"model.region.coord_features", "model.region.size_features"}  # they are random and stay


@pytest.mark.long
def test_a_finished_training_is_not_repeated(trained):
    checkpoint = trained / "run" / checkpoints.LATEST
    written = checkpoint.stat().st_mtime_ns
    first = (trained / "package" / "model.safetensors").read_bytes()

    run_training(trained)

    assert checkpoint.stat().st_mtime_ns == written
    assert (trained / "package" / "model.safetensors").read_bytes() == first


@pytest.mark.long
@pytest.mark.parametrize(
    "n_saved", [1, 3, 6], ids=["in the encoder stage", "in the decoder stage", "at the end"]
)
def test_a_killed_training_ends_like_an_uninterrupted_one(trained, tmp_path, monkeypatch, n_saved):
    save, left = checkpoints.save, n_saved

    def save_and_be_killed(*args):
        nonlocal left
        save(*args)
        left -= 1
        if not left:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save", save_and_be_killed)
    with pytest.raises(KeyboardInterrupt):
        run_training(tmp_path)
    monkeypatch.setattr(checkpoints, "save", save)
    run_training(tmp_path)

    torch.testing.assert_close(states_of(tmp_path), states_of(trained))
    log = RunLog(tmp_path / "run", [stage.name for stage in train.STAGES]).entries()
    whole = RunLog(trained / "run", [stage.name for stage in train.STAGES]).entries()
    steps = [[(e["stage"], e["step"]) for e in part if "losses" in e] for part in (log, whole)]
    assert steps[0] == steps[1]


@pytest.mark.long
def test_finishing_writes_a_package_and_leaves_the_run_as_it_is(trained):
    before = (trained / "run" / checkpoints.LATEST).read_bytes()
    first = (trained / "package" / "model.safetensors").read_bytes()

    run_training(trained, finish_minutes=0.02)

    assert (trained / "run" / checkpoints.LATEST).read_bytes() == before
    assert (trained / "package" / "model.safetensors").read_bytes() != first


def test_finishing_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(typer.BadParameter, match="train on"):
        run_training(tmp_path, finish_minutes=0.02)


@pytest.mark.long
def test_training_goes_on_from_a_package_with_other_pictures(trained, tmp_path):
    losses = []
    for seed in (train.SEED, 5):
        run_training(tmp_path / str(seed), from_package=trained / "package", seed=seed)
        entries = RunLog(tmp_path / str(seed) / "run", [stage.name for stage in train.STAGES]).entries()
        assert {entry["stage"] for entry in entries} == {"joint"}
        losses.append(entries[0]["losses"])

    assert losses[0] != losses[1]
    assert (
        Runtime.from_folder(tmp_path / "5" / "package").model.config
        == Runtime.from_folder(trained / "package").model.config
    )


def test_without_the_icon_sets_training_says_so_at_once(tmp_path, monkeypatch):
    def fail():
        raise train.IconsError("training draws icons from the npm registry: install npm")

    monkeypatch.setattr(train, "load_trained_drawings", fail)
    app = typer.Typer()
    app.command()(train.main)

    result = CliRunner().invoke(app, ["--folder", str(tmp_path / "run")])

    assert result.exit_code == 1
    assert "install npm" in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_the_log_draws_itself_and_survives_a_line_that_was_cut_short(trained):
    log = RunLog(trained / "run", [stage.name for stage in train.STAGES])
    entries = log.entries()
    with (trained / "run" / LOG).open("a") as file:
        file.write(json.dumps(entries[-1])[:20])

    assert log.entries() == entries
    (trained / "run" / PICTURE).unlink()
    assert log.draw().stat().st_size > 10_000


def test_the_rate_warms_up_stays_level_and_falls():
    stage = train.Stage("joint", 1000, 16, 1.0, fall=0.25, last_rate=0.1, evaluate_every=100)

    rates = [train.rate_at(stage, step, 1000) for step in range(1000)]

    assert rates[0] == pytest.approx(1 / train.WARM_UP_STEPS)
    assert set(rates[train.WARM_UP_STEPS : 750]) == {1.0}
    assert rates[750:] == sorted(rates[750:], reverse=True)
    assert 0.1 <= rates[-1] < 0.11
