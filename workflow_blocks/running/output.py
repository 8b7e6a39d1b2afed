"""The folder of a run's results, and the record of what was done and what was written there.

`progress.jsonl` has a line for each file when its results are begun and when they are written: its path, the
hash of its content, the folder of its results, and the files in it. So a later run knows what is done, and
removes nothing but what a run has made. Of files that came to the folders of a workflow's steps in a run that
was killed nobody knows who made them: they are moved aside.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from workflow_blocks.datasets.atomic_files import write_atomically
from workflow_blocks.running.errors import FileError, RunError
from workflow_blocks.running.files import shown
from workflow_blocks.running.sink_folders import SinkFolder

RUN_FILE = "run.json"
PROGRESS_FILE = "progress.jsonl"
TABLE_FILE = "aggregated_results.csv"
FAILURES_FILE = "failures.jsonl"
OWN_FILES = (RUN_FILE, PROGRESS_FILE, TABLE_FILE, FAILURES_FILE)
_EARLIER_PROGRESS_FILE = "progress.log"  # of earlier versions, and of Inference's command line

_MAX_NAME_BYTES = 200
_ASIDE = "of_a_killed_run"


@dataclass(frozen=True)
class Record:
    """A file that was processed.

    Attributes:
        file: its absolute path.
        results: the name of the folder of its results.
        sha256: of its content; None if it failed, or if processing it did not end.
        made: the files in that folder, relative to it; None while they are written.
    """

    file: str
    results: str
    sha256: str | None = None
    made: list[str] | None = None


class _NotOfARunError(Exception):
    """The record is not one that a run has written."""


class OutputFolder:
    """The folder that a run writes to."""

    def __init__(self, path: Path, sink_folders: Sequence[SinkFolder] = ()) -> None:
        """Reads the record of earlier runs; writes nothing.

        Args:
            path: the folder; it need not exist.
            sink_folders: folders that the workflow's steps write to, inside of `path` or elsewhere.

        Raises:
            RunError: the folder cannot be used, or holds files that a run would overwrite.
        """
        self.path = path
        self._records: dict[str, Record] = {}
        self._sink_folders_before: set[str] = set()
        self._sink_files: list[str] = []
        self._before_sinks: set[str] = set()
        # Of a run that was killed: the files that were in the sinks' folders before it.
        self._before_killed: set[str] | None = None
        self._of_unknown: set[str] = set()
        self._has_earlier_run = False
        try:
            self._root = path.resolve()
            str(self._root).encode()
            if path.exists() and not path.is_dir():
                raise RunError(f"{path} is not a folder; give another --output")
            resolved = [replace(folder, path=folder.path.resolve()) for folder in sink_folders]
            self._sinks = [folder for folder in resolved if folder.path.is_relative_to(self._root)]
            self._read()
            self._refuse_files_of_others()
        except _NotOfARunError as error:
            raise RunError(f"{path / PROGRESS_FILE} is not of a run; give another --output") from error
        except ValueError as error:
            raise RunError(f"{shown(path)} cannot be the name of a folder; give another --output") from error
        except OSError as error:
            raise RunError(f"{path} cannot be used: {error.strerror}; give another --output") from error

    @property
    def records(self) -> list[Record]:
        """The files that have results, sorted by path."""
        done = [record for record in self._records.values() if record.sha256]
        return sorted(done, key=lambda record: record.file)

    def open(self, run: dict[str, Any], again: bool) -> Path | None:
        """Creates the folder and notes what the results come from, so that results are never mixed.

        Args:
            run: what is run, as JSON values.
            again: whether to remove all earlier results.

        Returns:
            Where files of unknown origin were moved to, if there were any.

        Raises:
            RunError: the folder holds results of another run, or cannot be written.
        """
        run = json.loads(json.dumps(run))
        is_same = self._earlier_run() == run
        if self.records and not is_same and not again:
            raise RunError(
                f"{self.path} holds results of another workflow or other parameters "
                f"(see {self.path / RUN_FILE}); give another --output, or --again to replace them"
            )
        try:
            aside = None
            self._note_files_of_killed_run()
            if again or not is_same:
                aside = self._move_aside()
                self._remove_all()
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.path / RUN_FILE, f"{json.dumps(run, indent=2)}\n".encode())
            self._before_sinks = set(self._files_of_sinks())
            folders = [self._relative(sink.path) for sink in self._sinks]
            others = sorted(self._before_sinks - set(self._sink_files))
            unknown = sorted(self._of_unknown)
            self._append({"sink_folders": folders, "files_of_others": others, "files_of_unknown": unknown})
            return aside
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written: {error.strerror}; give another --output"
            ) from error

    def is_done(self, file: Path, sha256: str) -> bool:
        """Whether this file, with this content, has results."""
        record = self._records.get(_key(file))
        if record is None or record.sha256 != sha256:
            return False
        return all((self.path / record.results / name).is_file() for name in record.made or [])

    def results_of(self, file: Path) -> Path:
        """The folder of a file's results."""
        return self.path / self._records[_key(file)].results

    @contextmanager
    def writing(self, file: Path, sha256: str) -> Iterator[Path]:
        """Gives an empty folder for a file's results. The file is done if the body raises nothing."""
        record = self._make_folder(file)
        folder = self.path / record.results
        done = False
        try:
            yield folder
            done = True
        finally:
            made = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
            self._add(Record(record.file, record.results, sha256 if done else None, made))
            if not made:
                _remove_folders(folder, self.path)

    def note_files_of_sinks(self) -> None:
        """Notes the files that the workflow's steps made, for `open(..., again=True)` of a later run.

        Raises:
            RunError: the folder cannot be written.
        """
        try:
            self._append({"sink_files": sorted(set(self._files_of_sinks()) - self._before_sinks)})
        except OSError as error:
            raise RunError(f"{self.path} cannot be written: {error.strerror}") from error

    def _note_files_of_killed_run(self) -> None:
        """Notes what came to the sinks' folders since a run began that could not note it itself."""
        if self._before_killed is not None:
            self._of_unknown |= set(self._files_of_sinks()) - self._before_killed - set(self._sink_files)

    def _move_aside(self) -> Path | None:
        present = sorted(name for name in self._of_unknown if os.path.lexists(self._root / name))
        self._of_unknown.clear()
        if not present:
            return None
        names = [_ASIDE, *(f"{_ASIDE}.{number}" for number in range(2, 1000))]
        aside = next(self._root / name for name in names if not os.path.lexists(self._root / name))
        for name in present:
            target = aside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._root / name).rename(target)
            _remove_folders((self._root / name).parent, self._root)
        return self.path / aside.name

    def _make_folder(self, file: Path) -> Record:
        key = _key(file)
        if before := self._records.get(key):
            self._remove(before)
        digest = hashlib.sha256(os.fsencode(key)).hexdigest()[:8]
        name = _safe_name(file.name)
        short = name.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
        sink_folders = [Path(self._relative(folder)).parts[0] for folder in self._inner_sink_folders()]
        reserved = {own.casefold() for own in (*OWN_FILES, *sink_folders)}
        names = [name] if name == file.name and name.casefold() not in reserved else []
        names += [f"{short}.{digest}", *(f"{short}.{digest}.{number}" for number in range(1, 100))]
        for candidate in [before.results, *names] if before else names:
            try:
                (self.path / candidate).mkdir()
            except FileExistsError:
                continue  # not this file's
            self._add(Record(key, candidate))
            return self._records[key]
        raise FileError(f"no free name for its results in {self.path}")

    def _read(self) -> None:
        try:
            lines = (self.path / PROGRESS_FILE).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return
        except UnicodeDecodeError as error:
            raise _NotOfARunError from error
        for line in filter(None, lines):
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # unfinished, because a run was killed
            _check_paths(entry)
            if "file" in entry:
                self._records[entry["file"]] = Record(**entry)
            elif "sink_folders" in entry:
                self._sink_folders_before |= set(entry["sink_folders"])
                self._has_earlier_run = True
                self._of_unknown = set(entry.get("files_of_unknown", []))
                if (others := entry.get("files_of_others")) is not None:  # older versions wrote none
                    self._before_killed = set(others)
            else:
                self._sink_files += entry.get("sink_files", [])
                self._before_killed = None

    def _refuse_files_of_others(self) -> None:
        names = () if self._has_earlier_run else (*OWN_FILES, _EARLIER_PROGRESS_FILE)
        theirs = [self.path / name for name in names if (self.path / name).exists()]
        theirs += [
            folder
            for folder in self._inner_sink_folders()
            if self._relative(folder) not in self._sink_folders_before and _has_files(folder)
        ]
        if theirs:
            raise RunError(
                f"{theirs[0]} exists, and no earlier run of this version made it; give another --output"
            )

    def _inner_sink_folders(self) -> list[Path]:
        return [sink.path for sink in self._sinks if sink.path != self._root]

    def _relative(self, path: Path) -> str:
        return str(path.relative_to(self._root))

    def _earlier_run(self) -> object:
        try:
            return json.loads((self.path / RUN_FILE).read_bytes())
        except (OSError, ValueError):
            return None

    def _files_of_sinks(self) -> Iterator[str]:
        """Their files and empty folders."""
        results = {record.results for record in self._records.values()}
        for sink in self._sinks:
            for path in sink.files():
                name = path.relative_to(self._root)
                if name.parts[0] not in results and str(name) not in OWN_FILES:
                    yield str(name)

    def _add(self, record: Record) -> None:
        self._records[record.file] = record
        self._append(asdict(record))

    def _append(self, entry: dict[str, Any]) -> None:
        # The line break before each line ends a line that a killed run left unfinished.
        with (self.path / PROGRESS_FILE).open("a", encoding="utf-8") as file:
            file.write(f"\n{json.dumps(entry)}")

    def _remove_all(self) -> None:
        for record in self._records.values():
            self._remove(record)
        for name in self._sink_files:
            _remove_file(self._root / name, self._root)
        for name in OWN_FILES:
            (self.path / name).unlink(missing_ok=True)
        self._records.clear()
        self._sink_files.clear()

    def _remove(self, record: Record) -> None:
        folder = self.path / record.results
        if folder.is_symlink():
            return
        if record.made is None:  # a run was killed while it wrote them
            shutil.rmtree(folder, ignore_errors=True)
            return
        for name in record.made:
            _remove_file(folder / name, self.path)


def _check_paths(entry: object) -> None:
    """Checks a line of the record: what it names may be removed, so it must be inside of the folder.

    Raises:
        _NotOfARunError: a run does not write such a line.
    """
    if not isinstance(entry, dict):
        raise _NotOfARunError
    lists = [
        entry.get(name) for name in ("sink_folders", "sink_files", "files_of_others", "files_of_unknown")
    ]
    names = [name for names in lists if names is not None for name in _texts(names)]
    if "file" in entry:
        if not {"file", "results"} <= entry.keys() <= {"file", "results", "sha256", "made"}:
            raise _NotOfARunError
        results, sha256, made = entry["results"], entry.get("sha256"), entry.get("made")
        _texts([entry["file"], results, *([] if sha256 is None else [sha256])])
        if len(Path(results).parts) != 1 or Path(results).is_absolute():
            raise _NotOfARunError
        names += [results, *_texts(made or [])]
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in names):
        raise _NotOfARunError


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _NotOfARunError
    return value


def refuse_inputs_inside(folders: Sequence[Path], files: Sequence[Path]) -> None:
    """Refuses folders to write to that hold files to read.

    Raises:
        RunError: a folder does.
    """
    resolved = [folder.resolve() for folder in folders]
    for file in files:
        places = (Path(_key(file)), file.resolve())
        for folder in resolved:
            if any(place.is_relative_to(folder) for place in places):
                raise RunError(
                    f"{shown(folder)} holds the input {shown(file)}; give another folder for the results"
                )


def _key(file: Path) -> str:
    """A file's path without links and dots, but for a link that the file itself is."""
    return str(file.parent.resolve() / file.name)


def _safe_name(name: str) -> str:
    """A name that all programs can open: printable, without leading or trailing spaces, and not too long."""
    text = os.fsencode(name).decode("utf-8", "replace")
    text = "".join(c if c.isprintable() and c not in "\ufffd\\/" else "_" for c in text)
    text = text.strip(" ") or "_"
    return text if len(text.encode()) < 256 else text.encode()[:_MAX_NAME_BYTES].decode(errors="ignore")


def _has_files(folder: Path) -> bool:
    return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))


def _remove_file(path: Path, root: Path) -> None:
    """Removes a file or an empty folder, and the folders below `root` that are empty then."""
    if path.is_dir() and not path.is_symlink():
        _remove_folders(path, root)
        return
    path.unlink(missing_ok=True)
    _remove_folders(path.parent, root)


def _remove_folders(folder: Path, root: Path) -> None:
    while folder != root:
        try:
            folder.rmdir()
        except OSError:
            return  # not empty
        folder = folder.parent
