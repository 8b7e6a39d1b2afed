"""How many workers fit, by what nodes have and by what is free."""

import pytest
from typer.testing import CliRunner

from workflow_blocks.cluster.config import ClusterConfig
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.session import fitting_workers, ray_session
from workflow_blocks.commands.app import app


@pytest.mark.parametrize(
    ("nodes", "free", "settings", "expected"),
    [
        ([{"CPU": 2.0}], {"CPU": 2.0}, {}, 2),
        ([{"CPU": 2.0}], {"CPU": 1.0}, {}, 1),
        ([{"CPU": 2.0}], {}, {}, 0),
        ([{"CPU": 0.5}, {"CPU": 0.5}], {"CPU": 1.0}, {}, 0),  # no node holds a whole worker
        ([{"CPU": 9.0}], {"CPU": 9.0}, {}, 10),
        ([{"CPU": 8.0, "GPU": 1.0}], {"CPU": 8.0, "GPU": 1.0}, {"gpus_per_worker": 1}, 1),
        ([{"CPU": 8.0, "GPU": 1.0}], {"CPU": 8.0, "GPU": 1.0}, {"gpus_per_worker": 0.25}, 4),
        ([{"CPU": 8.0}], {"CPU": 8.0}, {"gpus_per_worker": 1}, 0),
        ([{"CPU": 8.0}, {"GPU": 4.0}], {"CPU": 8.0, "GPU": 4.0}, {"gpus_per_worker": 1}, 0),
        ([{"CPU": 0.0}, {"CPU": 4.0}], {"CPU": 4.0}, {"cpus_per_worker": 2}, 2),
        ([{"CPU": 1.0}, {"CPU": 1.0}], {}, {"cpus_per_worker": 0}, 2),
    ],
)
def test_workers_that_fit(definition, monkeypatch, nodes, free, settings, expected):
    import ray

    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": node} for node in nodes])
    monkeypatch.setattr(ray, "available_resources", lambda: free)

    assert fitting_workers(ClusterConfig(definition, **settings)) == expected


def test_a_cluster_that_is_not_there_is_an_error(monkeypatch):
    with pytest.raises(ClusterError, match="no Ray cluster at"), ray_session("127.0.0.1:1"):
        pass


@pytest.mark.parametrize(
    "words", ["--workers=0", "--workers=2,1", "--workers=1,2,3", "--cpus-per-worker=nan"]
)
def test_wrong_numbers_are_refused_before_ray_starts(monkeypatch, tmp_path, words):
    monkeypatch.setattr("workflow_blocks.cluster.session.import_ray", lambda: pytest.fail("Ray is imported"))
    arguments = ["run-cluster", "detect_objects", "-i", str(tmp_path), "-o", str(tmp_path / "out"), words]

    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 1
    assert words.removeprefix("--").partition("=")[0].replace("-", "_") in result.output.replace("-", "_")
    assert not (tmp_path / "out").exists()


def test_an_export_looks_at_the_results_before_ray_starts(monkeypatch, tmp_path):
    monkeypatch.setattr("workflow_blocks.cluster.session.import_ray", lambda: pytest.fail("Ray is imported"))

    result = CliRunner().invoke(app, ["export-dataset", str(tmp_path), "-o", str(tmp_path / "out")])

    assert result.exit_code == 1
    assert "has no results of" in result.output
