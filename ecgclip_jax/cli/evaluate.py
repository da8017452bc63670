"""`ecgclip evaluate RUN`: from a checkpoint to a results table and a report, baselines beside every number."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from pydantic import ValidationError
from rich.console import Console

from ecgclip_jax.cli.options import default_data_dir, parse, source_of, table_console
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import EvaluationSpec
from ecgclip_jax.spec.files import explain

if TYPE_CHECKING:
    from ecgclip_jax.evaluation.results import Results


@dataclass
class EvaluateArguments:
    """Evaluate a run: zero-shot, linear probe and retrieval, the untrained encoder and trivial features beside them.

    What is evaluated stands in the run's experiment; options change it. Probes learn on the train split and choose on
    the validation split; test labels are used once, for the table. Writes RUN/evaluation and RUN/report.html.
    """

    run: tyro.conf.Positional[Path]
    """Run folder, as `ecgclip train` wrote it."""
    data_dir: Path = field(default_factory=default_data_dir)
    """Folder of prepared cohorts ($ECGCLIP_DATA or ./data)."""
    step: int | None = None
    """Checkpoint to evaluate; without it the newest."""
    test: tuple[str, ...] = ()
    """Other test splits, each as COHORT/SPLIT."""
    prompt_language: Literal["en", "de"] | None = None
    """Language of the zero-shot prompts."""
    replicates: int | None = None
    """Patient-bootstrap draws for the 95 % intervals."""
    untrained_seeds: int = 1
    """How many random encoders stand beside the trained one."""
    on_overlap: Literal["refuse", "flag", "exclude"] = "refuse"
    """What to do when a test record or patient was seen in pre-training."""
    suite: str | None = None
    """A suite instead of the experiment's own evaluation: ecgclip89_small (synthetic, minutes on a laptop), ecgclip89,
    quick; or a published protocol: merl6, ecgfix, clef18, benchecg, the first three also NAME_as_released, with their
    known faults. Its cohorts, protocols and claims are its own; synthetic cohorts and further arms are made on the
    way."""
    prompts: tuple[Path, ...] = ()
    """Of a suite: JSON files of wordings, concept or class → text or list of texts, that zero-shot asks with beside the
    shipped sets. MERL's CKEPE_prompt.json gives two sets, as released and repaired."""
    with_patient_data: bool = False
    """Above access class `open`: also keep per-record arrays and counts below ten, in local files."""


def main(words: list[str]) -> int:
    """Evaluates, prints the table, writes the report."""
    arguments = parse(EvaluateArguments, words, "evaluate")
    if arguments.suite is None:
        if arguments.prompts:
            raise UserError("--prompts belongs to a suite: its results hold a row per set of prompts; add --suite NAME")
        evaluate_run(arguments, table_console())
        return 0
    from ecgclip_jax.cli.suites import evaluate_suite

    evaluate_suite(
        arguments.run,
        arguments.suite,
        arguments.data_dir,
        table_console(),
        step=arguments.step,
        on_overlap=arguments.on_overlap,
        replicates=arguments.replicates,
        with_patient_data=arguments.with_patient_data,
        prompts=arguments.prompts,
    )
    return 0


def evaluate_run(arguments: EvaluateArguments, console: Console) -> Results:
    """The results of a run folder, printed and reported.

    Raises:
        UserError: no run, no data, or an overlap with pre-training.
    """
    from ecgclip_jax.evaluation.harness import evaluate
    from ecgclip_jax.evaluation.summary import summary_table
    from ecgclip_jax.inference import load_model, untrained
    from ecgclip_jax.reporting.page import write_report

    model = load_model(arguments.run, arguments.step)
    spec = _evaluation_spec(model.experiment.evaluation, arguments)
    seeds = range(arguments.untrained_seeds if spec.untrained_baseline else 0)
    results = evaluate(
        model,
        arguments.data_dir,
        spec,
        arguments.run,
        untrained={seed: untrained(model, seed) for seed in seeds},
        exposure=arguments.run / "exposure.parquet",
        on_overlap=arguments.on_overlap,
        with_patient_data=arguments.with_patient_data,
    )
    console.print(summary_table(results))
    report = write_report(arguments.run, arguments.data_dir, model, results)
    console.print(f"results {arguments.run / 'evaluation'}\nreport  {report}", highlight=False, soft_wrap=True)
    return results


def _evaluation_spec(spec: EvaluationSpec, arguments: EvaluateArguments) -> EvaluationSpec:
    changes: dict[str, object] = {}
    if arguments.test:
        changes["test"] = tuple(source_of(word, "--test") for word in arguments.test)
    if arguments.prompt_language:
        changes["prompt_language"] = arguments.prompt_language
    if arguments.replicates is not None:
        changes["bootstrap_replicates"] = arguments.replicates
    try:
        return spec.replace(changes)
    except ValidationError as error:
        raise UserError(explain(error, "evaluation")) from error
