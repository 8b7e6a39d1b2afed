"""What the documentation says about the code, compared with the code."""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from pydantic_core import PydanticUndefined

from tests.test_architecture import MAY_IMPORT
from workflow_blocks import load_blocks
from workflow_blocks.moondream2.settings import RuntimeSettings

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("workflows/*.md")]
    if page.is_file()
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
BLOCKS = {block.get_manifest().model_fields["type"].annotation.__args__[0]: block for block in load_blocks()}


def anchors_of(page):
    """The anchors that GitHub gives the headings of a page."""
    headings = HEADING.findall(CODE.sub("", page.read_text()))
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def section(page, heading):
    """The text under a heading, up to the next heading of its level or above."""
    level = heading.split()[0]
    (text,) = re.findall(
        rf"^{re.escape(heading)}\n(.*?)(?=^#{{1,{len(level)}}} |\Z)",
        (ROOT / "docs" / page).read_text(),
        re.MULTILINE | re.DOTALL,
    )
    return text


def tables(text):
    """The tables in a text: the words above the first column, to the rows by their first cell."""
    found = {}
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        found[rows[0][0]] = {cells[0].strip("`"): cells[1:] for cells in rows[2:]}
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in LINK.findall(CODE.sub("", page.read_text())):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("identifier", BLOCKS)
def test_the_reference_names_every_field_and_output(identifier):
    manifest = BLOCKS[identifier].get_manifest()
    described = tables(section("blocks.md", f"## {identifier.split('/')[1]}"))

    fields = {name: field for name, field in manifest.model_fields.items() if name not in ("type", "name")}
    assert described["field"].keys() == fields.keys()
    for name, (_, default) in described["field"].items():
        assert (default == "") == fields[name].is_required(), name
        if default.startswith("`"):
            assert yaml.safe_load(default.strip("`")) == fields[name].default, name
        else:
            assert fields[name].default in (None, PydanticUndefined), name
    assert list(described["output"]) == [output.name for output in manifest.describe_outputs()]


def test_the_settings_of_the_runtime_are_all_described():
    described = tables(section("models.md", "## Settings of the runtime"))["setting"]

    assert described.keys() == {f"MOONDREAM2_{name.upper()}" for name in RuntimeSettings.model_fields}
    for name, field in RuntimeSettings.model_fields.items():
        if field.default is not None:
            default = described[f"MOONDREAM2_{name.upper()}"][-1]
            assert yaml.safe_load(default.strip("`")) == field.default, name


def test_the_architecture_names_every_folder():
    described = set(re.findall(r"`([\w/]+)`", section("architecture.md", "## Folders")))
    files = [path.relative_to(ROOT) for path in (ROOT / "workflow_blocks").glob("*/*") if path.is_file()]
    folders = {str(path.parent) for path in files if path.parent.name != "__pycache__"}

    assert folders <= described
    assert all((ROOT / name).is_dir() for name in described)
    assert {f"workflow_blocks/{name}" for name in MAY_IMPORT if not name.startswith("__")} <= folders


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(page):
    named = re.findall(r"`([\w./]*/[\w./]*)`", (ROOT / page).read_text())

    assert [name for name in named if not (ROOT / name).exists() and "<" not in name] == []


def test_the_changelog_has_this_version():
    assert f"## [{version('moondream2-workflow-blocks')}]" in (ROOT / "CHANGELOG.md").read_text()
