"""Drawings of everyday things from icon sets on the npm registry, which training downloads and renders.

Five sets draw the same things in five styles. Four are trained on; the fifth, drawn as if in 3D, is kept
aside to measure how far the model carries. The files are checked against known hashes and never committed.
"""

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from training.folder import training_folder
from training.names import THINGS, Thing

UInt8Array = npt.NDArray[np.uint8]

# Rendered icons are squares of this many pixels, and of these for when they are drawn smaller.
SIDES = (256, 128, 64, 32)


class IconsError(RuntimeError):
    """The icon sets cannot be fetched, or are not those that training knows."""


@dataclass(frozen=True)
class IconSet:
    """An icon set on the npm registry, and its licence."""

    name: str
    version: str
    sha256: str
    licence: str

    @property
    def package(self) -> str:
        return f"@iconify-json/{self.name}@{self.version}"


TRAINED_SETS = (
    IconSet(
        "noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad", "Apache-2.0"
    ),
    IconSet(
        "noto-v1", "1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37", "Apache-2.0"
    ),
    IconSet(
        "fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT",
    ),
    IconSet(
        "twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7", "CC-BY-4.0"
    ),
)
UNSEEN_SET = IconSet(
    "fluent-emoji", "1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b", "MIT"
)

# Of each thing, its drawings, each as images (side, side, 4) of `SIDES`, largest first: RGBA whose colours
# are multiplied by the opacity, so that transparent pixels do not bleed into others.
Drawing = tuple[UInt8Array, ...]
Drawings = Mapping[str, tuple[Drawing, ...]]


def load_drawings(icon_set: IconSet, folder: Path | None = None) -> Drawings:
    """The drawings of every thing in one style; fetched and rendered at first use.

    Args:
        icon_set: the style.
        folder: where downloads and rendered icons are kept; by default in `training_folder()`.

    Raises:
        IconsError: npm or resvg is missing, or the download fails or is not the known file.
    """
    folder = folder or training_folder() / "icons"
    rendered = folder / f"{icon_set.name}-{icon_set.version}-{_drawings_key()}.npz"
    if not rendered.exists():
        folder.mkdir(parents=True, exist_ok=True)
        icons = read_icons(fetch(icon_set, folder))
        names = sorted({name for thing in THINGS for name in thing.drawings})
        rendered_icons = {name: render(icons, name, SIDES[0]) for name in names}
        partial = rendered.with_suffix(".partial")
        with partial.open("wb") as file:
            np.savez_compressed(file, **rendered_icons)  # type: ignore[arg-type]  # the names are no options
        partial.rename(rendered)
    with np.load(rendered, allow_pickle=False) as arrays:
        return {thing.name: _drawings_of(thing, arrays) for thing in THINGS}


def load_trained_drawings(folder: Path | None = None) -> list[Drawings]:
    """The drawings in the styles that are trained on."""
    return [load_drawings(icon_set, folder) for icon_set in TRAINED_SETS]


def fetch(icon_set: IconSet, folder: Path) -> Path:
    """The set's package file in `folder`, downloaded through npm unless it is there already."""
    path = folder / f"{icon_set.name}-{icon_set.version}.tgz"
    if path.exists() and _sha256(path) == icon_set.sha256:
        return path
    npm = shutil.which("npm")
    if npm is None:
        raise IconsError("training draws icons from the npm registry: install npm (Node.js) and try again")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        command = [npm, "pack", "--silent", "--pack-destination", scratch, icon_set.package]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        files = list(Path(scratch).glob("*.tgz"))
        if result.returncode or len(files) != 1:
            raise IconsError(f"npm could not fetch {icon_set.package}: {result.stderr.strip()[-500:]}")
        if _sha256(files[0]) != icon_set.sha256:
            raise IconsError(f"npm fetched another file for {icon_set.package} than the one training knows")
        files[0].rename(path)
    return path


def read_icons(package: Path) -> dict[str, Any]:
    """The icons of a package file (`icons.json`)."""
    with tarfile.open(package) as archive:
        member = archive.extractfile("package/icons.json")
        assert member is not None
        icons: dict[str, Any] = json.load(member)
    return icons


def svg_of(icons: dict[str, Any], name: str) -> str:
    """An icon as an SVG document whose view box is square; others are padded."""
    name = icons.get("aliases", {}).get(name, {}).get("parent", name)
    icon = icons["icons"][name]
    left, top, width, height = (
        float(icon.get(key, icons.get(key, default)))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    side = max(width, height)
    box = (left - (side - width) / 2, top - (side - height) / 2, side, side)
    view = " ".join(f"{value:g}" for value in box)
    links = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {links} viewBox="{view}">{icon["body"]}</svg>'


def render(icons: dict[str, Any], name: str, side: int) -> UInt8Array:
    """An icon as RGBA (side, side, 4)."""
    try:
        import resvg_py
    except ImportError as error:
        raise IconsError("training renders icons with resvg-py: pip install 'resvg-py>=0.5'") from error
    png = resvg_py.svg_to_bytes(svg_string=svg_of(icons, name), width=side, height=side)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"), np.uint8)


def multiplied(image: UInt8Array) -> UInt8Array:
    """RGBA (side, side, 4) with colours multiplied by the opacity."""
    opacity = image[..., 3:].astype(np.float32) / 255
    return np.concatenate((np.round(image[..., :3] * opacity).astype(np.uint8), image[..., 3:]), axis=-1)


def in_all_sides(image: UInt8Array) -> Drawing:
    """A rendered icon (side, side, 4) as a drawing."""
    largest = multiplied(image)
    return tuple(
        np.asarray(cv2.resize(largest, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
        for side in SIDES
    )


def _drawings_of(thing: Thing, arrays: Mapping[str, UInt8Array]) -> tuple[Drawing, ...]:
    return tuple(in_all_sides(arrays[name]) for name in thing.drawings)


def _drawings_key() -> str:
    """Changes with the icons that are rendered."""
    text = " ".join(_all_drawings())
    return hashlib.sha256(f"{SIDES[0]} {text}".encode()).hexdigest()[:8]


def _all_drawings() -> Iterator[str]:
    for thing in THINGS:
        yield from thing.drawings


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
