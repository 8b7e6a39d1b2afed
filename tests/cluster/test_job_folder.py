"""What the folder of a job says of it, and which jobs are continued."""

import json

import pytest

from tests.cluster.conftest import BUCKET, contents_of, write_images
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.job_folder import JOB_FILE, JobFolder
from workflow_blocks.cluster.manifest import find_images
from workflow_blocks.cluster.store import Store


def start(folder, definition, parameters, source):
    return folder.start(definition, parameters, str(source), find_images(str(source)), 1, 4)


@pytest.fixture
def images(tmp_path):
    return write_images(tmp_path / "in", 2)


@pytest.mark.parametrize(
    "kind", ["secret", {"name": "secret"}, "roboflow_api_key", {"name": "roboflow_api_key"}]
)
def test_secrets_are_not_written(definition, images, tmp_path, kind):
    inputs = [
        {"type": "WorkflowParameter", "name": "given", "kind": [kind]},
        {"type": "WorkflowParameter", "name": "usual", "kind": [kind], "default_value": "hidden2"},
        {"type": "WorkflowParameter", "name": "server", "default_value": "https://me:hidden3@host/"},
    ]
    headers = {"Authorization": "Bearer hidden5", "Accept": "text/plain"}
    sink = {"type": "roboflow_core/webhook_sink@v1", "name": "sink", "headers": headers, "api_key": "hidden6"}
    changed = definition | {
        "inputs": [*definition["inputs"], *inputs],
        "steps": [*definition["steps"], sink],
    }
    parameters = {"given": "hidden1", "prompts": ["https://host/?token=hidden4", "dog"]}

    start(JobFolder(Store(str(tmp_path / "out"))), changed, parameters, images)

    assert all(b"hidden" not in content for content in contents_of(tmp_path / "out").values())
    job = json.loads((tmp_path / "out" / JOB_FILE).read_text())
    assert job["definition"]["steps"][-1]["headers"] == {"Authorization": "***", "Accept": "text/plain"}
    assert job["parameters"] == {"given": "***", "prompts": ["https://host/?token=***", "dog"]}


def test_values_of_secret_names_are_not_written(definition, images, tmp_path):
    inputs = [
        {"type": "WorkflowParameter", "name": "api_key", "default_value": "hidden1"},
        {"type": "WorkflowParameter", "name": "auth_tokens", "default_value": ["hidden2", ["hidden3"]]},
        {"type": "WorkflowParameter", "name": "headers", "default_value": {"Authorization": ["hidden4"]}},
        {"type": "WorkflowParameter", "name": "password"},
        {"type": "WorkflowParameter", "name": "max_tokens", "default_value": 500},
    ]
    sink = {
        "type": "x",
        "name": "sink",
        "credentials": {"of": ["hidden6", {"b": "hidden7"}]},
        "key": "$inputs.api_key",
    }
    changed = {
        **definition,
        "inputs": [*definition["inputs"], *inputs],
        "steps": [*definition["steps"], sink],
    }
    parameters = {
        "password": "hidden8",
        "headers": {"X-Api-Key": "hidden9", "cookie": {"token": ["hidden0"]}},
    }

    start(JobFolder(Store(str(tmp_path / "out"))), changed, parameters, images)

    assert all(b"hidden" not in content for content in contents_of(tmp_path / "out").values())
    job = json.loads((tmp_path / "out" / JOB_FILE).read_text())
    assert job["definition"]["inputs"][-1]["default_value"] == 500
    assert job["definition"]["steps"][-1]["key"] == "$inputs.api_key"


def test_classes_whose_names_are_those_of_secrets_are_written(definition, images, tmp_path):
    classes = {"key": "car key", "token": ["bus token", "coin"], "password": ["sticky note"]}
    inputs = [
        *definition["inputs"],
        {"type": "WorkflowParameter", "name": "what", "default_value": classes},
        {"type": "WorkflowParameter", "name": "key_prompts", "default_value": "key"},
    ]
    steps = [
        *definition["steps"],
        definition["steps"][0] | {"name": "a", "prompts": classes},
        definition["steps"][0] | {"name": "b", "prompts": "$inputs.what"},
    ]
    changed = {**definition, "inputs": inputs, "steps": steps}

    start(JobFolder(Store(str(tmp_path / "out"))), changed, {"what": classes, "prompts": classes}, images)

    job = json.loads((tmp_path / "out" / JOB_FILE).read_text())
    assert job["definition"] == changed
    assert job["parameters"] == {"what": classes, "prompts": classes}


def test_a_job_is_continued_by_any_spelling_of_its_input(definition, images, tmp_path, monkeypatch):
    folder = JobFolder(Store(str(tmp_path / "out")))
    monkeypatch.chdir(tmp_path)
    manifest = start(folder, definition, {}, "in")
    (tmp_path / "link").symlink_to(images)

    spellings = ["in", "in/", "./in", "link", str(images), f"{images}/", images.as_uri()]
    for source in [*spellings, "elsewhere/../in"]:
        assert folder.earlier_manifest(definition, {}, source, again=False) == manifest


def test_another_folder_of_the_same_name_is_another_input(definition, images, tmp_path, monkeypatch):
    folder = JobFolder(Store(str(tmp_path / "out")))
    monkeypatch.chdir(tmp_path)
    start(folder, definition, {}, "in")
    write_images(tmp_path / "elsewhere" / "in", 1)

    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(ClusterError, match="another input"):
        folder.earlier_manifest(definition, {}, "in", again=False)


def test_equal_prefixes_on_object_storage(storage, definition, tmp_path):
    storage.client.put_object(Bucket=BUCKET, Key="same/1.jpg", Body=b"-")
    folder = JobFolder(Store(str(tmp_path / "out")))
    manifest = start(folder, definition, {}, f"s3://{BUCKET}/same/")

    assert folder.earlier_manifest(definition, {}, f"s3://{BUCKET}/same", again=False) == manifest
    with pytest.raises(ClusterError, match="another input"):
        folder.earlier_manifest(definition, {}, f"s3://{BUCKET}/other", again=False)


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "theirs", ["rows/mine.txt", "job/mine.txt", "summary.json", "failures.parquet", "job/job.json"]
)
def test_files_of_others_are_not_written_over(definition, images, tmp_path, theirs):
    file = tmp_path / "out" / theirs
    file.parent.mkdir(parents=True)
    file.write_text("{}")

    for again in (False, True):
        with pytest.raises(ClusterError, match="give another --output"):
            JobFolder(Store(str(tmp_path / "out"))).earlier_manifest(definition, {}, str(images), again)

    assert file.read_text() == "{}"
    assert files_in(tmp_path / "out") == {theirs}


def test_a_job_that_is_replaced_leaves_files_of_others(definition, images, tmp_path):
    folder = JobFolder(Store(str(tmp_path / "out")))
    start(folder, definition, {}, images)
    own = files_in(tmp_path / "out")
    theirs = {"rows/mine.txt", "job/mine.txt", "job/manifest/mine.txt", "mine.txt"}
    stale = {"rows/part-0000000.parquet", "job/failures/part-0000007.parquet", "summary.json"}
    for name in theirs | stale:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(b"-")

    start(folder, definition, {}, images)

    assert files_in(tmp_path / "out") == own | theirs


def test_a_job_whose_removal_was_killed_starts_anew(definition, images, tmp_path, monkeypatch):
    folder = JobFolder(Store(str(tmp_path / "out")))
    start(folder, definition, {}, images)
    (tmp_path / "out" / "job" / "failures").mkdir()
    (tmp_path / "out" / "job" / "failures" / "part-0000007.parquet").write_bytes(b"-")
    with monkeypatch.context() as patched:
        patched.setattr(Store, "remove_folder", lambda *_: (_ for _ in ()).throw(OSError("killed")))
        with pytest.raises(ClusterError):
            start(folder, definition, {}, images)
    assert folder.earlier_manifest(definition, {}, str(images), again=False) is None
    with pytest.raises(ClusterError, match="has no results"):
        folder.job()

    start(folder, definition, {}, images)

    assert "job/failures/part-0000007.parquet" not in files_in(tmp_path / "out")
    assert folder.earlier_manifest(definition, {}, str(images), again=False) is not None


@pytest.mark.parametrize("source", ["out", "out/", "out/rows", "out/failures.parquet", "out/job/manifest"])
@pytest.mark.parametrize("again", [False, True])
def test_an_input_that_the_job_itself_writes_is_refused(definition, images, tmp_path, source, again):
    folder = JobFolder(Store(str(tmp_path / "out")))
    start(folder, definition, {}, images)
    before = files_in(tmp_path / "out")

    with pytest.raises(ClusterError, match="is among what a job writes in"):
        folder.earlier_manifest(definition, {}, f"{tmp_path}/{source}", again)

    assert files_in(tmp_path / "out") == before


def test_tables_around_the_output_are_refused(definition, images, tmp_path):
    folder = JobFolder(Store(str(tmp_path / "job" / "out")))
    start(folder, definition, {}, images)

    with pytest.raises(ClusterError, match="is among what a job writes in"):
        start(folder, definition, {}, tmp_path / "job")


@pytest.mark.parametrize("content", ["[]", "{}", "7", '{"manifest": {"n_images": 1}}', "{", "[" * 100_000])
def test_a_damaged_job_is_named(definition, images, tmp_path, content):
    folder = JobFolder(Store(str(tmp_path / "out")))
    start(folder, definition, {}, images)
    (tmp_path / "out" / JOB_FILE).write_text(content)

    for call in (folder.job, lambda: folder.earlier_manifest(definition, {}, str(images), again=True)):
        with pytest.raises(ClusterError, match=r"job\.json is not of a job"):
            call()
