"""`ecgclip compare RUN_A RUN_B`: two evaluated runs, or two models of one, paired on the same test records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.table import Table

from ecgclip_jax.cli.options import parse, table_console

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ecgclip_jax.evaluation.compare import Comparison, Difference

FIGURES = {"auroc": "AUROC", "average_precision": "AP", "average_precision_at_prevalence_0.05": "AP at 5 %"}


@dataclass
class CompareArguments:
    """Compare two evaluated runs on the test records that both were scored on: RUN_A minus RUN_B.

    Reads the predictions that `ecgclip evaluate` stored, so nothing is evaluated again. Records, labels and versions
    must be the same; what cannot be paired is named with its reason. Patients are drawn for both runs at once (95 %
    intervals), and the paired permutation test swaps patients; Holm keeps the chance of any false claim, BH the share
    of false ones. Macro means are per source of labels and never mix real and synthetic data.

    Two evaluations of the same experiment:   ecgclip compare runs/a runs/b

    The same suite of both:                   ecgclip compare runs/a runs/b --suite ecgclip89_small

    Two models of one evaluation:             ecgclip compare runs/a runs/a --models pre-trained "untrained seed 0"
    """

    first: tyro.conf.Positional[Path]
    """Run folder, evaluated."""
    second: tyro.conf.Positional[Path]
    """The run that is subtracted."""
    suite: str | None = None
    """Compare the predictions of this suite instead of the plain evaluation."""
    models: tuple[str, str] = ("pre-trained", "pre-trained")
    """The model of each run, as its tables name it."""
    replicates: int | None = None
    """Patient-bootstrap draws; without it as many as RUN_A was evaluated with."""
    permutations: int = 2000
    """Of the paired test; the smallest p it can give is 1 in so many."""
    out: Path | None = None
    """Folder for comparison.parquet; without it RUN_A/compare/RUN_B."""
    tasks: bool = False
    """Print every task, not the macro means alone; the file has both."""
    with_patient_data: bool = False
    """Above access class `open`: also tell figures of fewer than ten patients, in a local file."""


def main(words: list[str]) -> int:
    """Compares, prints the tables, writes the file."""
    from ecgclip_jax.evaluation.compare import compare

    arguments, console = parse(CompareArguments, words, "compare"), table_console()
    folders = [run / "evaluation" / (arguments.suite or "") for run in (arguments.first, arguments.second)]
    found = compare(
        folders[0],
        folders[1],
        arguments.models,
        replicates=arguments.replicates,
        permutations=arguments.permutations,
        with_patient_data=arguments.with_patient_data,
    )
    names = [
        f"{run.name} ({model})"
        for run, model in zip((arguments.first, arguments.second), arguments.models, strict=True)
    ]
    for table in tables(found, names, tasks=arguments.tasks):
        console.print(table)
    for test, why in found.skipped.items():
        console.print(f"! {test} was not compared: {why}", style="yellow", highlight=False, soft_wrap=True)
    out = arguments.out or arguments.first / "compare" / arguments.second.resolve().name
    console.print(f"table {found.save(out)}", highlight=False, soft_wrap=True)
    return 0


def tables(found: Comparison, names: Sequence[str], *, tasks: bool) -> list[Table]:
    """One table per availability, test and source of labels."""
    groups: dict[tuple[str, str, str, str], list[Difference]] = {}
    for row in found.rows:
        if tasks or row.label == "macro":
            groups.setdefault((row.availability, row.cohort, row.split, row.label_source), []).append(row)
    made = []
    for (availability, cohort, split, source), rows in groups.items():
        kind = (
            f" ({'SYNTHETIC' if availability == 'synthetic' else availability.replace('_', ' ')})"
            if availability
            else ""
        )
        table = Table(
            title=f"{cohort}, {split}, labels: {source}{kind} · {names[0]} − {names[1]}", title_justify="left"
        )
        for heading in ("protocol", "label", "figure"):
            table.add_column(heading)
        for heading in ("first", "second", "difference (95 %)", "p", "Holm", "BH", "n"):
            table.add_column(heading, justify="right")
        for row in rows:
            table.add_row(*_cells(row))
        made.append(table)
    return made


def _cells(row: Difference) -> list[str]:
    of_labels = f" {100 * row.label_fraction:g} %" if row.protocol in ("linear_probe", "fine_tune") else ""
    left = [row.protocol.replace("_", " ") + of_labels, row.label.replace("_", " "), FIGURES[row.metric]]
    n = f"{row.n_labels} labels" if row.label == "macro" else f"{row.n_positives} of {row.n}"
    if row.excluded:
        return [*left, "–", "–", row.excluded.replace("_", " "), "–", "–", "–", n]
    difference = f"{row.difference:+.3f} ({row.ci_low:+.3f} to {row.ci_high:+.3f})"
    tests = ["–" if math.isnan(p) else f"{p:.2g}" for p in (row.p, row.p_holm, row.p_bh)]
    return [*left, f"{row.first:.3f}", f"{row.second:.3f}", difference, *tests, n]
