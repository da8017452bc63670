"""`ecgclip evaluate RUN --suite NAME`: cohorts that can be generated, arms that can be trained, then the suite."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ecgclip_jax.cli.generated import prepare_generated
from ecgclip_jax.cli.options import shipped_experiment
from ecgclip_jax.spec.experiment import Experiment
from ecgclip_jax.spec.files import load_variants
from ecgclip_jax.spec.random_grid import random_grid
from ecgclip_jax.spec.suites import CohortSet, SuiteSpec
from ecgclip_jax.text.prompt_files import read_prompt_file

if TYPE_CHECKING:
    from ecgclip_jax.evaluation.suites.runner import SuiteOutcome
    from ecgclip_jax.inference import Model

ARMS_FOLDER = "arms"


def evaluate_suite(
    run: Path,
    name: str,
    data_dir: Path,
    console: Console,
    *,
    step: int | None,
    on_overlap: str,
    replicates: int | None,
    with_patient_data: bool,
    prompts: Sequence[Path] = (),
) -> SuiteOutcome:
    """The suite's outcome for a run, printed; arms that are not trained yet are trained in `RUN/arms`.

    `prompts` are files of wordings that zero-shot asks with beside the shipped ones.

    Raises:
        UserError: no run, no such suite, no data, an unusable file of prompts, or an overlap with pre-training.
    """
    from ecgclip_jax.evaluation.suites.context import SuiteModels
    from ecgclip_jax.evaluation.suites.named import suite
    from ecgclip_jax.evaluation.suites.runner import run_suite
    from ecgclip_jax.evaluation.suites.summary import suite_summary
    from ecgclip_jax.inference import load_model, untrained
    from ecgclip_jax.reporting.suite_page import write_suite_report

    spec = suite(name)
    if replicates is not None:
        spec = spec.replace({"bootstrap_replicates": replicates})
    asked = [found for path in prompts for found in read_prompt_file(path, spec.prompt_language)]
    model = load_model(run, step)
    if spec.generate:
        prepare_generated(cohorts_of(spec), data_dir, console)
    arms, notes = _arms(spec, model.experiment, run, data_dir, console)
    if spec.random_grid:
        grid = random_grid(model.experiment.data)
        arms |= {n: untrained(replace(model, experiment=e, tokenizer=None), 0) for n, e in grid.items()}
    outcome = run_suite(
        spec,
        SuiteModels(
            _as_fed(spec, model),
            cache(lambda seed: _as_fed(spec, untrained(model, seed))),
            {name: _as_fed(spec, arm) for name, arm in arms.items()},
            run / "exposure.parquet",
        ),
        data_dir,
        run,
        on_overlap=on_overlap,  # type: ignore[arg-type]  # tyro has checked it
        with_patient_data=with_patient_data,
        notes=notes,
        prompts=asked,
    )
    console.print(suite_summary(spec, outcome))
    folder = run / "evaluation" / spec.name
    report = write_suite_report(run, folder, spec, outcome, data_dir)
    console.print(f"results {folder}\nreport  {report}", highlight=False, soft_wrap=True)
    return outcome


def cohorts_of(spec: SuiteSpec) -> list[str]:
    """Every cohort that a suite names."""

    def of_set(cohorts: CohortSet) -> list[str]:
        tests = [source for test in cohorts.tests for source in test.sources]
        return [source.cohort for source in (*cohorts.train, *cohorts.validation, *tests)]

    return [c for s in (*spec.cohorts, *spec.null_cohorts) for c in of_set(s)]


def _as_fed(spec: SuiteSpec, model: Model) -> Model:
    """The model, or for a suite that gives millivolts to all the same weights behind an input without normalisation."""
    if not spec.without_normalisation:
        return model
    return replace(model, experiment=model.experiment.replace({"signal.normalisation": "none", "signal.unit": "mV"}))


def _arms(
    spec: SuiteSpec, experiment: Experiment, run: Path, data_dir: Path, console: Console
) -> tuple[dict[str, Model], list[str]]:
    """The suite's further arms, each trained as a variant of the run's own experiment file; why there are none.

    An arm takes as many steps as the run, or the part of them that its variant has of the steps of the run's variant.
    """
    from ecgclip_jax.inference import load_model
    from ecgclip_jax.training.loop import train

    if not spec.arms:
        return {}, []
    file = shipped_experiment(spec.experiment)
    variants = load_variants(file)
    own = next((variant for variant in variants.values() if variant.name == experiment.name), None)
    if own is None:
        return {}, [
            f"no ladder and no other arms: they are variants of experiments/{file.name}, and this run "
            f"({experiment.name}) is none of them, so its data and steps would differ"
        ]
    models = {}
    for arm in spec.arms:
        folder = run / ARMS_FOLDER / arm.variant
        console.print(f"arm {arm.name}: {folder}", highlight=False, soft_wrap=True)
        variant = variants[arm.variant]
        size = {
            "run.steps": max(1, experiment.run.steps * variant.run.steps // own.run.steps),
            "data.batch_global": experiment.data.batch_global,
        }
        train(variant.replace(size | {"seed": experiment.seed}), folder, data_dir)
        models[arm.name] = load_model(folder)
    return models, []
