"""The folder of a job's results, and what is known there of the job.

`rows/` holds the results, a file for each part of the manifest; `job/` what the job was, its manifest, and
its failed rows. A part is done when its file of rows is there.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from workflow_blocks.blocks.common.masking import MASK
from workflow_blocks.cluster.addresses import AddressError, is_secret_name, resolved, without_secrets
from workflow_blocks.cluster.errors import ClusterError
from workflow_blocks.cluster.manifest import FOLDER as MANIFEST_FOLDER
from workflow_blocks.cluster.manifest import Images, Manifest, is_manifest_file, write_manifest
from workflow_blocks.cluster.parts import FAILURES_FOLDER, ROWS_FOLDER, failures_file, part_of
from workflow_blocks.cluster.rows import SCHEMA
from workflow_blocks.cluster.store import Store
from workflow_blocks.running.parameters import kinds_of, objects_in, parameter_inputs

JOB_FOLDER = "job"
JOB_FILE = f"{JOB_FOLDER}/job.json"
FAILURES_FILE = "failures.parquet"
SUMMARY_FILE = "summary.json"
FAILURE_COLUMNS = ["id", "uri", "error", "worker"]
_SECRET_KINDS = {"secret", "roboflow_api_key"}
_READERS = 32
# Stands for a job whose results are being removed.
_REMOVED = {"state": "removed"}


class JobFolder:
    """The output folder of a job. Only one driver may use it at a time."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def earlier_manifest(
        self, definition: Mapping[str, Any], parameters: Mapping[str, Any], source: str, again: bool
    ) -> Manifest | None:
        """The manifest of the job that is continued; None if a new job starts. It writes nothing that stays.

        Args:
            definition: the workflow.
            parameters: its parameters.
            source: the input.
            again: whether the results of an earlier job are to be replaced.

        Raises:
            ClusterError: the folder holds results of another job, or cannot be written.
        """
        self._refuse_source(source)
        self.store.check_writable()
        with _errors_of(self.store):
            earlier = self._job()
            if earlier is None and (theirs := self._file_of_others()):
                raise ClusterError(
                    f"{self.store.address}/{theirs} exists, and no job of this version made it; give "
                    "another --output"
                )
        if earlier is None or earlier == _REMOVED or again:
            return None
        self._refuse_another(earlier, _fingerprint(definition, parameters), source)
        return Manifest(**earlier["manifest"])

    def start(
        self,
        definition: Mapping[str, Any],
        parameters: Mapping[str, Any],
        source: str,
        images: Images,
        n_workers: int,
        batch_size: int,
    ) -> Manifest:
        """Starts a job; the results of an earlier one are removed.

        Args:
            definition: the workflow.
            parameters: its parameters.
            source: the input, and
            images: what it holds.
            n_workers: see `write_manifest`.
            batch_size: see `write_manifest`.

        Raises:
            ClusterError: the folder cannot be written.
        """
        with _errors_of(self.store):
            if images.is_table and _resolved(self.store.address).startswith(f"{_resolved(source)}/"):
                raise _source_is_output(source, self.store)
            if self._job() is not None:
                self._remove_all()
            manifest = write_manifest(self.store, images, n_workers, batch_size)
            kept_definition, kept_parameters = _job_without_secrets(definition, parameters)
            job = {
                "fingerprint": _fingerprint(definition, parameters),
                "input": _resolved(source),
                "definition": kept_definition,
                "parameters": kept_parameters,
                "manifest": asdict(manifest),
            }
            # It comes last: without it, there is no job and the manifest is made again.
            self.store.write(JOB_FILE, json.dumps(job, indent=2).encode())
            return manifest

    def parts_done(self) -> set[int]:
        """The parts whose rows are written. What killed workers left unfinished is removed."""
        done = set()
        with _errors_of(self.store):
            for name in self.store.names(ROWS_FOLDER):
                part = part_of(name)
                if part is not None:
                    done.add(part)
                elif _is_unfinished(name):
                    self.store.remove(f"{ROWS_FOLDER}/{name}")
        return done

    def write_failures(self) -> int:
        """Writes the failed rows of all parts into one file, and returns how many they are."""

        def read(part: int) -> pa.Table:
            return self.store.read_table(failures_file(part), FAILURE_COLUMNS)

        with _errors_of(self.store), ThreadPoolExecutor(_READERS) as threads:
            names = self.store.names(FAILURES_FOLDER)
            parts = sorted(part for name in names if (part := part_of(name)) is not None)
            tables = list(threads.map(read, parts))
            columns = pa.schema([SCHEMA.field(name) for name in FAILURE_COLUMNS])
            failures = pa.concat_tables([columns.empty_table(), *tables])
            self.store.write_table(FAILURES_FILE, failures)
        return int(failures.num_rows)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        with _errors_of(self.store):
            self.store.write(SUMMARY_FILE, f"{json.dumps(summary, indent=2)}\n".encode())

    def summary(self) -> dict[str, Any]:
        """The summary of the last run; empty without one."""
        with _errors_of(self.store), suppress(ValueError, TypeError):
            return dict(json.loads(self.store.read(SUMMARY_FILE) or b"{}"))
        return {}

    def job(self) -> dict[str, Any]:
        """What the folder says of its job.

        Raises:
            ClusterError: it is not the folder of a job.
        """
        with _errors_of(self.store):
            job = self._job()
        if job is None or job == _REMOVED:
            raise ClusterError(f"{self.store.address} has no results of workflow-blocks run-cluster")
        return job

    def _job(self) -> dict[str, Any] | None:
        content = self.store.read(JOB_FILE)
        if content is None:
            return None
        with suppress(ValueError, RecursionError):
            job = json.loads(content)
            if job == _REMOVED or _is_job(job):
                return dict(job)
        raise ClusterError(f"{self.store.address}/{JOB_FILE} is not of a job; give another --output")

    def _file_of_others(self) -> str | None:
        """A file or folder that a job would write over, in a folder without a job."""
        if any(self.store.names(ROWS_FOLDER)):
            return ROWS_FOLDER
        # A job that was killed when it started has left its manifest.
        own = {name.rpartition("/")[2] for name in (MANIFEST_FOLDER, FAILURES_FOLDER)}
        theirs = [
            name for name in self.store.names(JOB_FOLDER) if name not in own and not _is_unfinished(name)
        ]
        return next((f"{JOB_FOLDER}/{name}" for name in theirs), None) or next(
            (name for name in (FAILURES_FILE, SUMMARY_FILE) if self.store.exists(name)), None
        )

    def _refuse_source(self, source: str) -> None:
        """Refuses an input that a job in this folder writes or removes."""
        own = [_resolved(self.store.address)]
        own += [f"{own[0]}/{name}" for name in (FAILURES_FILE, SUMMARY_FILE)]
        place = _resolved(source)
        if place in own or any(
            f"{place}/".startswith(f"{own[0]}/{name}/") for name in (ROWS_FOLDER, JOB_FOLDER)
        ):
            raise _source_is_output(source, self.store)

    def _refuse_another(self, earlier: Mapping[str, Any], key: str, source: str) -> None:
        differs = None
        if earlier.get("fingerprint") != key:
            differs = "another workflow or other parameters"
        elif _resolved(str(earlier.get("input"))) != _resolved(source):
            differs = f"another input ({earlier.get('input')})"
        if differs:
            raise ClusterError(
                f"{self.store.address} holds results of {differs} (see {JOB_FILE} in it); give another "
                "--output, or --again to replace them"
            )

    def _remove_all(self) -> None:
        """Removes what a job has made. If this is killed, the next job removes the rest."""
        self.store.write(JOB_FILE, json.dumps(_REMOVED).encode())
        self._remove_files_in(ROWS_FOLDER, lambda name: part_of(name) is not None)
        self._remove_files_in(FAILURES_FOLDER, lambda name: part_of(name) is not None)
        self._remove_files_in(MANIFEST_FOLDER, is_manifest_file)
        for name in (FAILURES_FILE, SUMMARY_FILE):
            self.store.remove(name)

    def _remove_files_in(self, folder: str, is_own: Callable[[str], bool]) -> None:
        names = list(self.store.names(folder))
        own = [name for name in names if is_own(name) or _is_unfinished(name)]
        if own == names:
            self.store.remove_folder(folder)
            return
        with ThreadPoolExecutor(_READERS) as threads:
            for _ in threads.map(lambda name: self.store.remove(f"{folder}/{name}"), own):
                pass


def _is_job(job: object) -> bool:
    if not isinstance(job, dict) or not all(
        isinstance(job.get(name), str) for name in ("fingerprint", "input")
    ):
        return False
    manifest = job.get("manifest")
    names = {one.name for one in fields(Manifest)}
    return (
        isinstance(manifest, dict)
        and manifest.keys() == names
        and all(type(value) is int and value >= 0 for value in manifest.values())
        and manifest["part_rows"] > 0
    )


def _is_unfinished(name: str) -> bool:
    """Whether a file is one that a killed worker was writing."""
    return name.startswith(".") and name.endswith(".part")


def _source_is_output(source: str, store: Store) -> ClusterError:
    return ClusterError(
        f"the input {without_secrets(source)} is among what a job writes in {store.address}; give another "
        "--output"
    )


def _resolved(source: str) -> str:
    try:
        return resolved(source)
    except AddressError as error:
        raise ClusterError(str(error)) from error


@contextmanager
def _errors_of(store: Store) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = without_secrets(error.strerror or str(error))
        raise ClusterError(f"{store.address} cannot be used: {reason}") from error


def _fingerprint(definition: Mapping[str, Any], parameters: Mapping[str, Any]) -> str:
    text = json.dumps([definition, parameters], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _job_without_secrets(
    definition: Mapping[str, Any], parameters: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A definition and parameters that may be stored: without secret values, and credentials in addresses."""
    inputs = parameter_inputs(definition)
    of_classes = _parameters_of_classes(definition)
    by_kind = {name for name, entry in inputs.items() if _SECRET_KINDS & set(kinds_of(entry))}

    def kept(name: str, value: Any) -> Any:
        if name in by_kind:
            return MASK if value else value
        return _cleaned(value, is_of_classes=name in of_classes, is_secret=_is_secret(name))

    entries = [
        entry | {"default_value": kept(entry["name"], entry["default_value"])}
        if isinstance(entry, dict) and entry.get("name") in inputs and "default_value" in entry
        else _cleaned(entry)
        for entry in definition["inputs"]
    ]
    others = {name: value for name, value in definition.items() if name != "inputs"}
    return _cleaned(others) | {"inputs": entries}, {
        name: kept(name, value) for name, value in parameters.items()
    }


def _parameters_of_classes(definition: Mapping[str, Any]) -> set[str]:
    """The parameters that fields of classes take, and those that are named as such fields."""
    of_steps = [field for step in objects_in(definition["steps"]) for field in step.items()]
    taken = {value for name, value in of_steps if _is_of_classes(name) and isinstance(value, str)}
    return {
        name for name in parameter_inputs(definition) if f"$inputs.{name}" in taken or _is_of_classes(name)
    }


def _cleaned(value: Any, is_of_classes: bool = False, is_secret: bool = False) -> Any:
    """A value without secrets.

    `is_of_classes` says that names in it are those of classes, such as "key"; `is_secret` that the texts in
    it are secret because of the name of the field.
    """
    if isinstance(value, str):
        return MASK if is_secret and value and not value.startswith("$") else without_secrets(value)
    if isinstance(value, list):
        return [_cleaned(item, is_of_classes, is_secret) for item in value]
    if isinstance(value, dict):
        return {
            _cleaned(name): _cleaned(
                item,
                is_of_classes or _is_of_classes(name),
                is_secret or (not is_of_classes and _is_secret(name)),
            )
            for name, item in value.items()
        }
    return value


def _is_secret(name: object) -> bool:
    """Whether a field is named as one of a secret, such as `api_key` or `Authorization`."""
    return isinstance(name, str) and is_secret_name(name) and not _is_of_classes(name)


def _is_of_classes(name: object) -> bool:
    """Whether a field holds classes or prompts, such as `prompts` and `class_mapping`."""
    return isinstance(name, str) and (name.endswith(("prompt", "prompts")) or "class" in name)
