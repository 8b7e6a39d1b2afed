"""Which format and classes the dataset in a folder has. Only classes may be added."""

from collections.abc import Sequence

from workflow_blocks.datasets.class_names import check_class_name
from workflow_blocks.datasets.errors import DatasetError
from workflow_blocks.datasets.file_changes import HIDDEN_FOLDER, DatasetFolder
from workflow_blocks.datasets.formats import SPLITS, DatasetFormatName
from workflow_blocks.datasets.records import Records


class Schema:
    """The format and classes that a writer wants. The caller must hold the dataset's lock."""

    def __init__(
        self,
        folder: DatasetFolder,
        records: Records,
        format: DatasetFormatName,
        class_names: Sequence[str] | None,
    ) -> None:
        """`class_names` are the only classes, in the order of their ids; None if classes may be added."""
        self._folder = folder
        self._records = records
        self._format = format
        self._fixed_classes = None if class_names is None else list(class_names)

    def check(self) -> None:
        """Checks whether the folder is free, or has a dataset of this format with these classes.

        Raises:
            DatasetError: it has another dataset.
        """
        found = self._records.setting("format")
        if found is None:
            self._check_empty()
        elif found != self._format:
            raise DatasetError(
                f"{self._folder.path} holds a dataset in the format {found!r}, not {self._format!r}; "
                "choose another target directory"
            )
        known = self._records.class_names()
        fixed = self._fixed_classes
        if fixed is not None and fixed[: len(known)] != known:
            raise DatasetError(
                f"{self._folder.path} has the classes {known} already, and `class_names` is {fixed}; "
                "start the list with those, or choose another target directory"
            )

    def claim(self) -> None:
        """Makes the folder a dataset of this format, if it is free. Called inside `Records.change`.

        Raises:
            DatasetError: another writer made it something else.
        """
        self.check()
        if self._records.setting("format") is None:
            self._records.set_setting("format", self._format)
            self._records.set_setting("file_names", "of_source")

    def add_classes(self, names: Sequence[str]) -> list[str]:
        """Adds what is new among the classes of an image, and returns all classes.

        Raises:
            DatasetError: a class is not one of the fixed ones, or no file can hold its name.
        """
        new = list(dict.fromkeys(names if self._fixed_classes is None else self._fixed_classes))
        for name in new:
            check_class_name(name)
        known = self._records.add_classes(new)
        for name in names:
            if name not in known:
                raise DatasetError(f"the class {name!r} is not in `class_names`; add it there")
        return known

    def _check_empty(self) -> None:
        """Refuses a dataset of others, or one that was copied without its records."""
        for name in ("data.yaml", *SPLITS):
            path = self._folder.path / name
            if self._folder.is_linked(name):
                continue  # an error when it is written
            if path.is_file() or any(
                not found.name.startswith(".") and not found.is_dir() for found in path.rglob("*")
            ):
                raise DatasetError(
                    f"{path} exists, but the dataset's records (the folder {HIDDEN_FOLDER}) do not; copy "
                    "that folder too, or choose another target directory"
                )
