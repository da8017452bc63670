"""`ecgclip evaluate RUN --suite NAME`: from a run and prepared cohorts to a table, predictions and verdicts.

The order keeps test labels out of every choice: all fits are made from training and validation alone, and are kept,
before the first figure on a test split is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ecgclip_jax.data.sources import strictest_access
from ecgclip_jax.evaluation.embedding import Store
from ecgclip_jax.evaluation.index_ecg import DEFAULT_WINDOW, SENSITIVITY_WINDOWS, EchoWindow
from ecgclip_jax.evaluation.results import ResultRow, Results, suppress_small_cells
from ecgclip_jax.evaluation.scoring import ranking_rows
from ecgclip_jax.evaluation.selection import Overlapping
from ecgclip_jax.evaluation.suites.arrays import Rows, wanted_rows
from ecgclip_jax.evaluation.suites.axes import Setting, axis_rows, input_settings, window_settings
from ecgclip_jax.evaluation.suites.claims import Tested, Verdict, judge, save_verdicts
from ecgclip_jax.evaluation.suites.context import Suite, SuiteModels
from ecgclip_jax.evaluation.suites.guards import permutation_warnings
from ecgclip_jax.evaluation.suites.nulls import NullVerdict, judge_nulls, save_null_verdicts
from ecgclip_jax.evaluation.suites.opening import OpenSet, open_set, suite_tasks
from ecgclip_jax.evaluation.suites.set_scores import score_set
from ecgclip_jax.evaluation.suites.subgroups import subgroup_rows
from ecgclip_jax.evaluation.suites.wording import with_spread
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.spec.suites import CohortSet, SuiteSpec
from ecgclip_jax.text.prompts import PromptSet, load_prompts

LABEL_METRICS = ("auroc", "average_precision", "average_precision_at_prevalence_0.05")
"""What a suite writes per label; macro means have every figure."""


@dataclass(frozen=True)
class SuiteOutcome:
    """Everything a suite found."""

    results: Results
    verdicts: tuple[Verdict, ...]
    nulls: tuple[NullVerdict, ...] = ()


def run_suite(
    spec: SuiteSpec,
    models: SuiteModels,
    data_dir: str | Path,
    workdir: str | Path,
    *,
    on_overlap: Overlapping = "refuse",
    show_progress: bool = True,
    with_patient_data: bool = False,
    notes: Sequence[str] = (),
    prompts: Sequence[PromptSet] = (),
) -> SuiteOutcome:
    """Evaluates a run on a suite; writes `workdir/evaluation/<suite>`. Stopped, it goes on where it was.

    `notes` join the warnings; `prompts` ask zero-shot after the suite's own sets.

    Raises:
        EvaluationError: no cohort of the suite is prepared, a patient in two roles, or overlap with pre-training.
    """
    names = suite_tasks(spec)
    warnings = [*notes, *spec.remarks, *(f"{n.task} ({n.cohort}): no data: {n.why}" for n in spec.without_data)]
    _require_lead(spec, models)
    sets = _open_sets(spec.cohorts, names, data_dir, models.exposure, on_overlap, warnings)
    nulls = _open_sets(spec.null_cohorts, names, data_dir, models.exposure, on_overlap, warnings)
    if not sets:
        raise EvaluationError(f"suite {spec.name}: no cohort of it is at hand: " + "; ".join(warnings))
    if models.exposure is None:
        warnings.append("no exposure table: overlap of the test sets with pre-training was not checked")
    windows = {own.name: _windows(spec, own, names, data_dir, models.exposure, on_overlap) for own in sets}
    opened = [*sets, *nulls]
    access = strictest_access([models.pretrained.access, *_access_classes(opened)])  # type: ignore[list-item]
    folder = Path(workdir) / "evaluation" / spec.name
    keep = access == "open" or with_patient_data
    asked = [*(load_prompts(spec.prompt_language, name) for name in spec.prompt_sets), *prompts]
    if twice := sorted({p.name for p in prompts} & {*spec.prompt_sets}):
        raise EvaluationError(
            f"prompt sets {', '.join(twice)} are shipped under this name; rename the file of --prompts"
        )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), disable=not show_progress) as progress:
        store = Store(folder / "store" if keep else None)
        suite = Suite(spec, models, folder, store, access, keep, progress, _wanted(opened, windows), asked, warnings)
        rows, tested = list[ResultRow](), dict[str, list[Tested]]()
        for own in opened:
            found = score_set(suite, own, is_null=own in nulls)
            tested[own.name] = list(found.tests)
            rows += found.other_rows
            for setting in () if own in nulls else (*input_settings(spec, own), *windows[own.name]):
                rows += axis_rows(suite, setting)
            for test, split in zip(found.tests, own.tests, strict=True):
                with suite.stage("figures and intervals"):
                    rows += ranking_rows(test.split, test.scored, LABEL_METRICS)
                    rows += subgroup_rows(test.split, split, test.scored)
                name = f"{own.name}, {test.name}"
                suite.warnings += permutation_warnings(name, test.split.labels, test.scored)
        with suite.stage("claims"):
            verdicts = [
                verdict
                for own in sets
                for verdict in judge(spec.claims, own.internal, tested[own.name], spec.permutations)
            ]
    rows = with_spread(rows, asked[0].name)
    if not keep:
        rows = [suppress_small_cells(row) for row in rows]
    save_verdicts(verdicts, folder)
    predicted = judge_nulls(spec.null_worlds, rows, asked[0].name)
    save_null_verdicts(predicted, folder)
    (folder / "suite.json").write_text(spec.model_dump_json(indent=1), encoding="utf-8")
    results = Results(tuple(rows), tuple(suite.warnings), seconds=suite.seconds).save(folder, labels_in_json=False)
    return SuiteOutcome(results, tuple(verdicts), tuple(predicted))


def _require_lead(spec: SuiteSpec, models: SuiteModels) -> None:
    """A model of one lead must be given that lead."""
    view = models.pretrained.experiment.view
    for cohorts in spec.cohorts:
        if view.single_lead and cohorts.input.leads and view.inference_lead not in cohorts.input.leads:
            raise EvaluationError(
                f"suite {spec.name} shows lead {', '.join(cohorts.input.leads)} alone, the run reads lead "
                f"{view.inference_lead}; evaluate a run whose view.inference_lead is shown"
            )


def _open_sets(
    cohorts: Sequence[CohortSet],
    names: Sequence[str],
    data_dir: str | Path,
    exposure: Path | None,
    on_overlap: Overlapping,
    warnings: list[str],
) -> list[OpenSet]:
    found = []
    for own in cohorts:
        opened = open_set(data_dir, own, names, exposure, on_overlap, warnings)
        if isinstance(opened, str):
            warnings.append(f"{own.name}: no data: {opened}")
            continue
        warnings += [f"{own.name}, {name}: no data: {why}" for name, why in opened.missing.items()]
        found.append(opened)
    return found


def _windows(
    spec: SuiteSpec,
    own: OpenSet,
    names: Sequence[str],
    data_dir: str | Path,
    exposure: Path | None,
    on_overlap: Overlapping,
) -> list[Setting]:
    """The set with each window between ECG and echo; what there is to warn of was said of the set itself."""
    if not spec.echo_windows:
        return []
    cohorts = next(cohorts for cohorts in spec.cohorts if cohorts.name == own.name)

    def reopen(window: EchoWindow) -> OpenSet | str:
        return open_set(data_dir, cohorts, names, exposure, on_overlap, [], window)

    return list(window_settings((DEFAULT_WINDOW, *SENSITIVITY_WINDOWS), own, reopen))


def _wanted(opened: Sequence[OpenSet], windows: Mapping[str, Sequence[Setting]]) -> dict[str, Rows]:
    """Rows of every set, and those that only a window chooses: so none is embedded twice."""
    return wanted_rows([*opened, *(setting.opened for own in windows.values() for setting in own)])


def _access_classes(opened: Sequence[OpenSet]) -> list[str]:
    return [p.opened.access for s in opened for split in (s.train, s.validation, *s.tests) for p in split.parts]
