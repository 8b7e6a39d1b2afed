"""The playground's routes: who is answered, which files are read, and what is refused."""

import base64
import io
import json
import os
import shutil
import socket
import zipfile
from types import SimpleNamespace

import pytest
import requests
from fastapi import FastAPI
from starlette.testclient import TestClient

from tests.scenes import image_png
from tests.stand_ins import SHAPES_MODEL
from workflow_blocks.datasets.labelled import read_labelled
from workflow_blocks.running.playground import datasets
from workflow_blocks.running.playground.access import Access, access_for
from workflow_blocks.running.playground.folder import FolderError, ReadDirectory
from workflow_blocks.running.playground.routes import MAX_BODY_BYTES, PAGE, add_playground

TOKEN = "the-token"
PAGE_ROUTES = ["/playground", "/playground/page/main.js", "/playground/page/style.css"]
API_ROUTES = [
    "/playground/api/info",
    "/playground/api/model?version=moondream2-demo",
    "/playground/api/samples/zoo.jpg",
    "/playground/api/thumbnails/zoo.jpg",
    "/playground/api/folder",
    "/playground/api/folder/image?path=0.png",
    "/playground/api/folder/preview?path=0.png",
    "/playground/api/datasets/x",
]


def client_of(access, folder=None, base_url="http://127.0.0.1:9001"):
    app = FastAPI()
    add_playground(app, {}, access, folder and ReadDirectory(folder))
    return TestClient(app, base_url=base_url)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("read")
    (folder / "0.png").write_bytes(image_png(0))
    return folder


@pytest.fixture
def local(folder):
    with client_of(Access(None), folder) as client:
        yield client


@pytest.fixture
def public(folder):
    with client_of(Access(TOKEN), folder, "http://192.0.2.7:9001") as client:
        yield client


def test_the_page_is_small_and_strict():
    assert sum(path.stat().st_size for path in PAGE.iterdir()) < 200_000


@pytest.mark.parametrize("path", PAGE_ROUTES + API_ROUTES[:-1])
def test_the_server_answers(server, path):
    answer = requests.get(f"{server}{path}", timeout=60)

    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_may_load_and_send_nothing_elsewhere(server):
    policy = requests.get(f"{server}/playground", timeout=60).headers["Content-Security-Policy"]

    sources = {part.split()[0]: part.split()[1:] for part in policy.split("; ")}
    assert sources["default-src"] == ["'none'"]
    assert sources["frame-ancestors"] == sources["base-uri"] == ["'none'"]
    for allowed in sources.values():
        assert set(allowed) <= {"'self'", "'none'", "blob:"}


def test_the_skills_of_a_package_are_known_before_it_is_loaded(local, text_package, tmp_path):
    def skills_of(version):
        answer = local.get("/playground/api/model", params={"version": version})
        assert answer.status_code == 200, answer.text
        return answer.json()["skills"]

    damaged = shutil.copytree(text_package, tmp_path / "damaged")
    (damaged / "config.json").write_text("{")
    assert {"detect", "point", "query"} < set(skills_of("moondream2-demo"))
    assert skills_of(str(SHAPES_MODEL)) == ["detect"]
    assert {"detect", "point", "query"} < set(skills_of(text_package))
    assert skills_of(str(damaged)) is None
    assert skills_of("moondream2/moondream2_2b_jul24") is None
    # Such an id comes from a checked folder only; by itself it opens none.
    assert skills_of(f"moondream2/package-{text_package.encode().hex()}") is None


def test_a_folder_that_is_no_package_has_no_skills(local, tmp_path):
    (tmp_path / "config.json").write_text("{}")

    for version in (str(tmp_path), "", "a\x00b"):
        answer = local.get("/playground/api/model", params={"version": version})
        assert answer.status_code == 400
        assert "model_version" in answer.json()["message"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1"])
def test_a_loopback_address_needs_no_token(address):
    assert access_for(address).token is None


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7", "2001:db8::1"])
def test_other_addresses_get_a_new_token_each_time(address):
    tokens = {access_for(address).token for _ in range(3)}

    assert len(tokens) == 3
    assert all(len(token) >= 32 for token in tokens)


@pytest.mark.parametrize("path", PAGE_ROUTES + API_ROUTES)
@pytest.mark.parametrize(
    "host", ["example.com", "192.0.2.7:9001", "127.0.0.1.example.com", "localhost.com", "["]
)
def test_on_loopback_a_request_that_names_another_host_is_refused(local, path, host):
    answer = local.get(path, headers={"Host": host})

    assert answer.status_code == 403
    assert answer.json()["message"]


@pytest.mark.parametrize("host", ["localhost:9001", "127.0.0.1", "[::1]:9001", "playground.localhost"])
def test_on_loopback_all_names_of_this_machine_work(local, host):
    assert local.get("/playground/api/info", headers={"Host": host}).status_code == 200


FROM_OTHER_SITES = [
    {"Origin": "https://example.com"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:9002"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
]


@pytest.mark.parametrize("headers", FROM_OTHER_SITES)
@pytest.mark.parametrize("path", API_ROUTES)
def test_requests_of_other_sites_are_refused(local, path, headers):
    assert local.get(path, headers=headers).status_code == 403


@pytest.mark.parametrize("headers", FROM_OTHER_SITES)
def test_other_sites_cannot_change_anything(local, public, headers):
    new = {"format": "coco", "class_names": ["a"]}

    assert local.post("/playground/api/datasets", json=new, headers=headers).status_code == 403
    assert public.post("/playground/api/session", json={"token": TOKEN}, headers=headers).status_code == 403


def test_a_link_of_another_site_opens_the_page(local):
    assert local.get("/playground", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


@pytest.mark.parametrize("path", API_ROUTES)
@pytest.mark.parametrize(
    "cookies",
    [
        {},
        {"playground_token_9001": ""},
        {"playground_token_9001": TOKEN[:-1]},
        {"playground_token_9002": TOKEN},
    ],
)
def test_away_from_loopback_nothing_is_answered_without_the_token(public, path, cookies):
    public.cookies.update(cookies)

    assert public.get(path).status_code == 401
    page = public.get("/playground")
    assert page.status_code == 401
    assert "token" in page.text


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", "\u00e9"])
def test_a_wrong_token_opens_nothing(public, token):
    answer = public.post("/playground/api/session", json={"token": token})

    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_the_token_opens_the_playground_by_a_cookie_that_scripts_cannot_read(public):
    cookie = public.post("/playground/api/session", json={"token": TOKEN}).headers["set-cookie"]

    assert {"HttpOnly", "Path=/playground", "SameSite=strict"} <= set(cookie.split("; "))
    assert public.get("/playground").status_code == 200
    assert public.get("/playground/api/folder").json()["images"] == ["0.png"]


def test_two_servers_on_one_machine_keep_their_tokens(public, folder):
    with client_of(Access("other-token"), folder, "http://192.0.2.7:9002") as other:
        public.post("/playground/api/session", json={"token": TOKEN})
        other.cookies = public.cookies  # as a browser has them: for all ports of a machine
        other.post("/playground/api/session", json={"token": "other-token"})
        public.cookies = other.cookies

        assert other.get("/playground/api/info").status_code == 200
        assert public.get("/playground/api/info").status_code == 200


def test_without_a_read_directory_no_folder_is_read():
    with client_of(Access(None)) as client:
        answer = client.get("/playground/api/folder")
        assert client.get("/playground/api/info").json()["folder"] is None

    assert answer.status_code == 404
    assert "--read-directory" in answer.json()["message"]


def test_the_folder_lists_images_and_folders_and_no_links_that_lead_out(server):
    listing = requests.get(f"{server}/playground/api/folder", timeout=60).json()

    assert listing["images"] == ["0.png", "1.png"]
    assert listing["folders"] == ["inner", "to_inner"]
    assert listing["skipped"] == 3


@pytest.mark.parametrize(
    "path",
    [
        "../outside/secret.png",
        "link.png",
        "link/secret.png",
        "inner/../../outside/secret.png",
        "to_inner/../../outside/secret.png",
        "/etc/passwd",
        "notes.txt",
        "missing.png",
        "inner",
        "",
        "0.png\0.png",
        "a" * 5000,
        "%2e%2e/outside/secret.png",
    ],
)
@pytest.mark.parametrize("route", ["image", "preview"])
def test_no_other_file_is_read(server, route, path):
    answer = requests.get(f"{server}/playground/api/folder/{route}", params={"path": path}, timeout=60)

    assert answer.status_code == 404
    assert answer.json()["message"]


@pytest.mark.parametrize("path", ["..", "/", "link", "inner/../..", "missing"])
def test_no_other_folder_is_listed(server, path):
    answer = requests.get(f"{server}/playground/api/folder", params={"path": path}, timeout=60)

    assert answer.status_code == 404


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(tmp_path, monkeypatch):
    inner, outside = tmp_path / "root" / "inner", tmp_path / "outside"
    for folder in (inner, outside):
        folder.mkdir(parents=True)
        (folder / "a.png").write_bytes(image_png(0))
    directory = ReadDirectory(tmp_path / "root")
    checked = ReadDirectory._inside

    def check_then_swap(self, relative):
        path = checked(self, relative)
        inner.rename(tmp_path / "away")
        inner.symlink_to(outside)
        return path

    monkeypatch.setattr(ReadDirectory, "_inside", check_then_swap)

    with pytest.raises(FolderError):
        directory.read("inner/a.png", 10**9)


def test_pipes_sockets_and_large_files_are_not_read(tmp_path):
    directory = ReadDirectory(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket.png"))
    (tmp_path / "large.png").write_bytes(b"x" * 101)

    assert directory.list("").images == ["large.png"]
    for name in ("pipe.png", "socket.png", "large.png"):
        with pytest.raises(FolderError, match=name):
            directory.read(name, 100)


def new_dataset(client, format="coco", class_names=("circle",)):
    answer = client.post("/playground/api/datasets", json={"format": format, "class_names": class_names})
    assert answer.status_code == 201, answer.text
    return f"/playground/api/datasets/{answer.json()['dataset']}"


def new_image(**changes):
    content = base64.b64encode(image_png(0)).decode()
    label = {"class_name": "circle", "box": [10, 20, 60, 70]}
    return {"name": "a.png", "content": content, "labels": [label], "split": {"train": 1}} | changes


@pytest.mark.parametrize("format", ["coco", "yolo", "pascal_voc"])
def test_a_dataset_holds_the_labels_that_were_sent(local, tmp_path, format):
    dataset = new_dataset(local, format)
    outside = {"class_name": "circle", "box": [-30, 5, 20, 9_999]}
    gone = {"class_name": "circle", "box": [-30, 5, -2, 30]}
    for image in (
        new_image(),
        new_image(name="b.png", content=None, path="0.png", labels=[outside, gone], split={"valid": 1}),
    ):
        answer = local.post(f"{dataset}/images", json=image)
        assert answer.status_code == 200
        assert answer.json()["split"] in image["split"]

    with zipfile.ZipFile(io.BytesIO(local.get(dataset).content)) as archive:
        assert not any(name.startswith(".") for name in archive.namelist())
        archive.extractall(tmp_path / "dataset")
    # The same pixels twice are one image, with the labels that came last.
    images = read_labelled(tmp_path / "dataset", "valid", format)
    (image,) = images.images
    assert images.problems == []
    assert image.class_ids.tolist() == [0]
    assert image.boxes[0].tolist() == pytest.approx([0, 5, 20, image.height], abs=1)


@pytest.mark.parametrize(
    ("image", "status", "words"),
    [
        (new_image(content=base64.b64encode(b"no image").decode()), 422, "not an image"),
        (new_image(content="%%%"), 400, "base64"),
        (new_image(content=None), 400, "content"),
        (new_image(path="0.png"), 400, "content"),
        (new_image(content=None, path="../0.png"), 404, "does not exist"),
        (new_image(labels=[{"class_name": "dog", "box": [0, 0, 9, 9]}]), 422, "dog"),
        (new_image(labels=[{"class_name": "circle", "box": [0, 0, 9]}]), 400, "labels.0.box"),
        (new_image(labels=[{"class_name": "circle", "box": [0, 0, 9, "NaN"]}]), 400, "labels.0.box"),
        (new_image(labels=[{"class_name": "circle", "box": [0, 0, 9, "9"]}]), 400, "labels.0.box"),
        (new_image(split={"train": 0}), 400, "split"),
        (new_image(split={"other": 1}), 400, "split"),
        (new_image(extra=1), 400, "extra"),
        ([], 400, ""),
    ],
)
def test_a_bad_image_is_refused_and_the_dataset_goes_on(local, image, status, words):
    dataset = new_dataset(local)

    answer = local.post(f"{dataset}/images", json=image)

    assert answer.status_code == status, answer.text
    assert words in answer.json()["message"]
    assert local.post(f"{dataset}/images", json=new_image()).status_code == 200


def test_a_request_that_is_too_large_is_refused_before_it_is_read(local):
    dataset = new_dataset(local)

    def body():
        for _ in range(MAX_BODY_BYTES // 2**20 + 2):
            yield b" " * 2**20

    answer = local.post(f"{dataset}/images", content=body())

    assert answer.status_code == 413
    assert local.post(f"{dataset}/images", json=new_image()).status_code == 200


def test_datasets_are_few_and_removed(local):
    started = [new_dataset(local) for _ in range(8)]
    new = {"format": "coco", "class_names": ["a"]}

    answer = local.post("/playground/api/datasets", json=new)
    assert answer.status_code == 429
    assert "8 datasets are being put together" in answer.json()["message"]
    assert local.delete(started[0]).status_code == 204
    assert local.get(started[0]).status_code == 404
    assert local.post("/playground/api/datasets", json=new).status_code == 201


def test_finished_datasets_hold_up_no_others(local):
    finished = []
    for _ in range(10):
        dataset = new_dataset(local)
        assert local.post(f"{dataset}/images", json=new_image()).status_code == 200
        assert local.get(dataset).status_code == 200
        finished.append(dataset)

    # A browser may continue a download; but nothing can be added to what was downloaded.
    assert local.get(finished[-1]).content == local.get(finished[-1]).content
    answer = local.post(f"{finished[-1]}/images", json=new_image())
    assert answer.status_code == 404
    assert "finished" in answer.json()["message"]


def test_an_abandoned_dataset_makes_place(local, monkeypatch):
    started = [new_dataset(local) for _ in range(8)]
    monkeypatch.setattr(datasets, "ABANDONED_SECONDS", 0)
    for dataset in started[1:]:
        assert local.post(f"{dataset}/images", json=new_image()).status_code == 200

    new_dataset(local)

    assert local.post(f"{started[0]}/images", json=new_image()).status_code == 404
    assert local.post(f"{started[1]}/images", json=new_image()).status_code == 200


def test_finished_datasets_make_room_and_the_limit_is_reported(local, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_BYTES", 2 * len(image_png(0)))
    finished, unfinished = new_dataset(local), new_dataset(local)
    for dataset in (finished, unfinished):
        assert local.post(f"{dataset}/images", json=new_image()).status_code == 200
        if dataset is finished:
            assert local.get(finished).status_code == 200

    assert local.post(f"{unfinished}/images", json=new_image(name="b.png")).status_code == 200
    assert local.get(finished).status_code == 404
    answer = local.post(f"{unfinished}/images", json=new_image(name="c.png"))
    assert answer.status_code == 507
    assert "larger than" in answer.json()["message"]


def test_a_full_disk_is_reported(local, monkeypatch):
    dataset = new_dataset(local)
    monkeypatch.setattr(datasets.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))

    answer = local.post(f"{dataset}/images", json=new_image())

    assert answer.status_code == 507
    assert "disk" in answer.json()["message"]


@pytest.mark.parametrize("names", [[], [""], ["a\x00b"], "a", None, [7], ["a", "\ud800"]])
def test_bad_class_names_are_refused(local, names):
    answer = local.post(
        "/playground/api/datasets",
        content=f'{{"format": "coco", "class_names": {json.dumps(names)}}}',
    )

    assert answer.status_code == 400
    assert answer.json()["message"]
