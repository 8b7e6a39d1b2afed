import hashlib
import json
import stat
import tarfile

import numpy as np
import pytest

from training.icons import IconsError, IconSet, fetch, in_all_sides, load_drawings, read_icons, render, svg_of
from training.names import THINGS

SQUARE = '<path fill="#f00" d="M0 0h8v8H0z"/>'


def icon_package(path, icons, **sizes):
    document = {"icons": icons, "aliases": {"other": {"parent": "wide"}}, **sizes}
    path.parent.mkdir(parents=True, exist_ok=True)
    inside = path.with_suffix(".json")
    inside.write_text(json.dumps(document))
    with tarfile.open(path, "w:gz") as archive:
        archive.add(inside, "package/icons.json")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def fake_npm(tmp_path, monkeypatch):
    """An `npm` on the path that packs a file of ours, and the hash of that file."""
    names = {name for thing in THINGS for name in thing.drawings}
    served = tmp_path / "served" / "icons.tgz"
    sha256 = icon_package(served, {name: {"body": SQUARE} for name in names}, width=8, height=8)
    program = tmp_path / "bin" / "npm"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\ncp {served} "$4/icons.tgz"\necho called >> {tmp_path}/calls\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    return sha256


def test_without_npm_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(IconsError, match="install npm"):
        fetch(IconSet("noto", "1", "0" * 64, "MIT"), tmp_path)


def test_a_failing_npm_is_reported_with_its_message(tmp_path, monkeypatch):
    program = tmp_path / "npm"
    program.write_text("#!/bin/sh\necho no such package >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    with pytest.raises(IconsError, match="no such package"):
        fetch(IconSet("noto", "1", "0" * 64, "MIT"), tmp_path)


@pytest.mark.usefixtures("fake_npm")
def test_a_file_with_another_hash_is_refused_and_not_kept(tmp_path):
    folder = tmp_path / "icons"
    folder.mkdir()

    with pytest.raises(IconsError, match="another file"):
        fetch(IconSet("noto", "1", "0" * 64, "MIT"), folder)

    assert list(folder.iterdir()) == []


def test_a_set_is_fetched_and_rendered_once(tmp_path, fake_npm):
    pytest.importorskip("resvg_py")
    icon_set = IconSet("noto", "1", fake_npm, "MIT")

    first = load_drawings(icon_set, tmp_path / "icons")
    second = load_drawings(icon_set, tmp_path / "icons")

    assert (tmp_path / "calls").read_text() == "called\n"
    assert set(first) == set(second) == {thing.name for thing in THINGS}
    assert (first["dog"][0][0] == (255, 0, 0, 255)).all()


def test_icons_that_are_not_square_are_padded(tmp_path):
    pytest.importorskip("resvg_py")
    body = '<path fill="#00f" d="M0 0h16v8H0z"/>'
    icon_package(tmp_path / "icons.tgz", {"wide": {"body": body, "width": 16}}, height=8)
    icons = read_icons(tmp_path / "icons.tgz")

    image = render(icons, "other", 32)

    assert 'viewBox="0 -4 16 16"' in svg_of(icons, "wide")
    opaque = image[..., 3] > 127
    assert np.flatnonzero(opaque.any(axis=1)).tolist() == list(range(8, 24))
    assert opaque[8:24].all()


def test_smaller_drawings_keep_their_colour_at_the_edges():
    image = np.zeros((256, 256, 4), np.uint8)
    image[50:203, 50:203] = (200, 100, 50, 255)

    for small in in_all_sides(image):
        opacity = small[..., 3:].astype(float) / 255
        seen = opacity[..., 0] > 0.2
        colours = small[..., :3][seen] / opacity[seen]
        np.testing.assert_allclose(colours, np.broadcast_to((200, 100, 50), colours.shape), atol=6)
