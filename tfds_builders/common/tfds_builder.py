"""A cohort as a genuine TFDS builder, whose `download_and_prepare` goes through our writer.

`GeneratorBasedBuilder` and `ShardBasedBuilder` are TFDS's two implementations of `_download_and_prepare`: the first
needs TensorFlow beyond 1000 MiB, the second writes in one process. This is a third, on the same public base; so the
folder is the same whether TFDS or `ecgclip prepare` made it.
"""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from tfds_builders.common.build import build_into
from tfds_builders.common.cohort import Cohort, CohortFacts
from tfds_builders.common.schema import features


class CohortBuilder(FileReaderBuilder):  # type: ignore[misc]
    """Base of the `Builder` in every `NAME_dataset_builder.py`.

    Args:
      workers: processes that write; None takes one per CPU.
      options: what the cohort takes (its source folder, its rate …), as `tfds.builder(name, **options)` passes it on.
    """

    FACTS: ClassVar[CohortFacts]

    def __init__(self, *, file_format: str | None = None, workers: int | None = None, **options: Any) -> None:
        own = {name: options.pop(name) for name in ("data_dir", "config", "version") if name in options}
        self._workers, self._options = workers, options
        super().__init__(file_format=file_format or "array_record", **own)
        # What TFDS pickles and calls __init__ with again.
        self._original_state |= {"workers": workers, **options}

    @abstractmethod
    def make_cohort(self, download_dir: Path, **options: Any) -> Cohort:
        """The cohort with the builder's options; fetches what has to be fetched into `download_dir`."""

    def _info(self) -> Any:
        return self.dataset_info_from_configs(
            features=features(), homepage=self.FACTS.homepage, license=self.FACTS.licence, disable_shuffling=True
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any = None) -> None:
        cohort = self.make_cohort(Path(self._data_dir_root) / "downloads" / self.name, **self._options)
        folder = Path(self.data_dir)
        build_into(cohort, cohort.plan(), folder, workers=self._workers)
        if (own := cohort.facts.name) != self.name:  # a part, a world or a user's cohort: TFDS looks for the builder's
            for path in folder.glob(f"{own}-*.array_record-*"):
                path.rename(folder / f"{self.name}{path.name.removeprefix(own)}")
        self.info.read_from_directory(self.data_dir)
