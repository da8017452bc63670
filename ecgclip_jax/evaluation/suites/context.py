"""What the stages of a suite share: the models that are compared, where things are kept, progress and warnings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from rich.progress import Progress

from ecgclip_jax.evaluation.embedding import Model, Store
from ecgclip_jax.evaluation.protocols.tuning_data import Tunable
from ecgclip_jax.evaluation.suites.arrays import Rows
from ecgclip_jax.spec.suites import SuiteSpec
from ecgclip_jax.text.prompts import PromptSet


@runtime_checkable
class SuiteModel(Model, Tunable, Protocol):
    """What a suite needs of a model: to embed, and to be tuned from."""


@dataclass(frozen=True)
class SuiteModels:
    """The run that is evaluated, its untrained twin by seed, and what else was pre-trained for comparison."""

    pretrained: SuiteModel
    untrained: Callable[[int], SuiteModel]
    arms: Mapping[str, SuiteModel] = field(default_factory=dict)
    exposure: Path | None = None
    """Of the run; the arms learn from the same records."""


@dataclass
class Suite:
    """What all stages share."""

    spec: SuiteSpec
    models: SuiteModels
    folder: Path
    store: Store
    access: str
    keep: bool
    progress: Progress
    wanted: Mapping[str, Rows]
    """By cohort, version and split: rows that any set of the suite has chosen."""
    prompts: Sequence[PromptSet]
    """Of zero-shot, the headline set first."""
    warnings: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the wall-clock time of a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def bar(self, what: str, total: int) -> Callable[[int], None]:
        """A progress bar; the result advances it."""
        task = self.progress.add_task(what, total=total)
        return lambda n: self.progress.advance(task, n)
