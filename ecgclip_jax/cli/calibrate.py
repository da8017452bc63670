"""`ecgclip calibrate RUN --data COHORT/SPLIT`: thresholds and temperature for a hospital's own records."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro
from rich.console import Console
from rich.table import Table

from ecgclip_jax.cli.options import default_data_dir, parse, source_of

if TYPE_CHECKING:
    from ecgclip_jax.evaluation.recalibrate import LocalTask


@dataclass
class CalibrateArguments:
    """Refit the thresholds and the temperature of a run's linear probe on local records.

    A threshold that was chosen elsewhere gives other alarms here: prevalence, devices and patients differ. The run must
    have been evaluated (`ecgclip evaluate RUN` keeps its probe). One temperature serves all tasks, each task has a
    threshold of its own. For every task the command says how many patients with the finding it found, and how many it
    takes to know sensitivity and specificity within --half-width (95 %, Wilson). Use records not tested on later.

    Writes RUN/evaluation/operating_points-COHORT.json beside the run's own points, never over a file.

    A cohort of your own:   ecgclip calibrate runs/first --data my_hospital/validation

    Few false alarms:       ecgclip calibrate runs/first --data my_hospital/validation --rule specificity --target 0.95
    """

    run: tyro.conf.Positional[Path]
    """Run folder, evaluated."""
    data: str
    """Records to fit on, as COHORT/SPLIT of a prepared cohort."""
    data_dir: Path = field(default_factory=default_data_dir)
    """Folder of prepared cohorts ($ECGCLIP_DATA or ./data)."""
    step: int | None = None
    """Checkpoint that was evaluated; without it the newest."""
    rule: Literal["youden", "sensitivity", "specificity", "f1"] = "youden"
    """youden: largest sensitivity + specificity; sensitivity, specificity: at least --target; f1: largest F1."""
    target: float = 0.9
    """Of the rules sensitivity and specificity."""
    half_width: float = 0.1
    """How exactly sensitivity and specificity shall be known, to either side."""
    on_overlap: Literal["refuse", "flag", "exclude"] = "refuse"
    """What to do when a record or patient was seen in pre-training."""
    with_patient_data: bool = False
    """Above access class `open`: also write counts below ten and what comes from them, in a local file."""


def main(words: list[str]) -> int:
    """Refits, prints what was found per task, writes the file."""
    arguments, console = parse(CalibrateArguments, words, "calibrate"), Console()
    source = source_of(arguments.data, "--data")
    from ecgclip_jax.evaluation.recalibrate import recalibrate
    from ecgclip_jax.inference import load_model

    found = recalibrate(
        load_model(arguments.run, arguments.step),
        arguments.run,
        arguments.data_dir,
        source,
        rule=arguments.rule,
        target=arguments.target,
        half_width=arguments.half_width,
        on_overlap=arguments.on_overlap,
        with_patient_data=arguments.with_patient_data,
    )
    table = Table(
        title=f"{arguments.data}: {found.n_ecgs:,} ECGs of {found.n_patients:,} patients, rule {arguments.rule}",
        title_justify="left",
    )
    table.add_column("task")
    for heading in ("with it", "needed", "patients needed", "threshold", "sensitivity", "specificity", "enough"):
        table.add_column(heading, justify="right")
    for task in found.tasks:
        table.add_row(*_cells(task))
    console.print(table)
    for warning in found.warnings:
        console.print(f"! {warning}", style="yellow", highlight=False, soft_wrap=True)
    few = [task.concept for task in found.tasks if not task.enough]
    summary = f"{len(found.tasks) - len(few)} of {len(found.tasks)} tasks have enough patients"
    console.print(f"temperature {found.points.temperature:.3g}; {summary}", highlight=False)
    if few:
        console.print(f"too few: {', '.join(few)}", highlight=False, soft_wrap=True)
    console.print(f"points {found.path}", highlight=False, soft_wrap=True)
    return 0


def _cells(task: LocalTask) -> list[str]:
    counts = [
        "–" if n is None else f"{n:,}" for n in (task.n_patients_positive, task.needed_positives, task.needed_ecgs)
    ]
    name = task.concept.replace("_", " ")
    if math.isnan(task.threshold):
        return [name, *counts, task.reason.replace("_", " "), "–", "–", "no"]
    figures = [f"{x:.3g}" for x in (task.threshold, task.sensitivity, task.specificity)]
    return [name, *counts, *figures, "yes" if task.enough else "no"]
