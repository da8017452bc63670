"""What a suite prints: per cohort and source of labels the macro means of every model, then the verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ecgclip_jax.evaluation.registry import LabelSource, tasks, the_89
from ecgclip_jax.evaluation.results import Exclusion, ResultRow
from ecgclip_jax.evaluation.suites.claims import Finding, Verdict
from ecgclip_jax.evaluation.suites.nulls import NullVerdict
from ecgclip_jax.evaluation.suites.released import BEST_TEST_EPOCH
from ecgclip_jax.evaluation.suites.runner import SuiteOutcome
from ecgclip_jax.evaluation.summary import columns_that_fit
from ecgclip_jax.spec.suites import PRETRAINED, SuiteSpec

FIGURE = "average_precision"
_NAME_WIDTH: Final = 22
_CELL_WIDTH: Final = 15
"""Columns that a protocol or a model and a figure take, frame included."""
_ORDER = ("zero_shot", "nearest_neighbours", "linear_probe", BEST_TEST_EPOCH, "fine_tune", "tabular", "oracle")


def suite_summary(spec: SuiteSpec, outcome: SuiteOutcome) -> RenderableType:
    """Tables of macro average precision, one per set of cohorts and source of labels, and the claims below."""
    rows = [
        r
        for r in outcome.results.rows
        if r.label == "macro" and not r.compared_with and not r.subgroup and not r.axis and r.protocol in _ORDER
        if r.model == PRETRAINED or r.prompt_set in ("", spec.prompt_sets[0])
    ]
    parts: list[RenderableType] = [Text(_headline(outcome.results.rows), style="bold"), Text("")]
    for key in dict.fromkeys((r.cohort, r.label_group) for r in rows if r.label_group != "none"):
        own = [r for r in rows if (r.cohort, r.label_group) == key and r.metric == FIGURE]
        parts += [_SetTable(own, *key), Text("")]
    parts += [_verdict(verdict) for verdict in outcome.verdicts]
    parts += [_null_verdict(verdict) for verdict in outcome.nulls]
    parts += [Text(f"! {warning}", style="yellow") for warning in outcome.results.warnings]
    return Group(*parts)


def _headline(rows: Sequence[ResultRow]) -> str:
    """How many tasks were scored, on real data and on synthetic, and how many classes of published label sets."""
    finite = [
        r for r in rows if r.label != "macro" and math.isfinite(r.value) and r.label_group in get_args(LabelSource)
    ]
    ours = {task.name for task in the_89()}
    real, synthetic = (len({r.label for r in finite if r.label in ours and r.synthetic is s}) for s in (False, True))
    classes = len({(r.split, r.label) for r in finite if r.label not in tasks()})
    counted = f"{real} of 89 tasks scored on real data, {synthetic} on SYNTHETIC data"
    return f"{classes} classes of published label sets scored; {counted}" if classes else counted


@dataclass(frozen=True)
class _SetTable:
    """One set of cohorts; on a narrow console its tests are spread over several tables, so that no figure is cut."""

    rows: Sequence[ResultRow]
    cohort: str
    source: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """The tables that fit the width."""
        splits = list(dict.fromkeys(row.split for row in self.rows))
        kind = "SYNTHETIC · " if self.rows and self.rows[0].synthetic else ""
        title = f"{kind}{self.cohort} · labels: {self.source} · macro average precision of n labels"
        yield Text(f"{title}; spread: over wordings", style="italic")
        for fitting in columns_that_fit(splits, options.max_width - 2 * _NAME_WIDTH, _CELL_WIDTH):
            yield self._table(fitting)

    def _table(self, splits: Sequence[str]) -> Table:
        table = Table()
        for name in ("protocol, labels used", "model"):
            table.add_column(name, width=_NAME_WIDTH - 3)
        for split in splits:
            table.add_column(split, justify="right", min_width=_CELL_WIDTH - 3)
        of_line: dict[tuple[str, float, str, str], dict[str, ResultRow]] = {}
        for row in self.rows:
            of_line.setdefault((row.protocol, row.label_fraction, row.prompt_set, row.model), {})[row.split] = row
        for line in sorted(of_line, key=lambda line: (_ORDER.index(line[0]), line[1])):
            (protocol, fraction, words, model), found = line, of_line[line]
            cells = [_cell(found[split]) if split in found else "–" for split in splits]
            used = "" if protocol in ("zero_shot", "oracle") else f" {fraction:.0%}"
            asked = f", {words.replace('_', ' ')}" if words else ""
            table.add_row(protocol.replace("_", " ") + used + asked, model, *cells)
        return table


def _cell(row: ResultRow) -> str:
    if row.excluded == Exclusion.FEW_LABELS:
        return f"{row.n_labels} labels"
    if math.isnan(row.value):
        return row.excluded.replace("_", " ") or "undefined"
    words = "" if math.isnan(row.prompt_spread) else f"\nspread {row.prompt_spread:.3f}"
    return f"{row.value:.3f} ({row.n_labels})\n{row.ci_low:.3f}–{row.ci_high:.3f}{words}"


def _verdict(verdict: Verdict) -> Text:
    claim = verdict.claim
    mark, style = ("holds", "green") if verdict.holds else ("DOES NOT HOLD", "red")
    lines = [f"{mark}: {claim.text}"]
    lines += [f"    {finding.cohort}: {_finding(finding)}" for finding in verdict.findings]
    return Text("\n".join(lines), style=style)


def _null_verdict(verdict: NullVerdict) -> Text:
    world = verdict.world
    mark, style = ("as predicted", "green") if verdict.holds else ("NOT AS PREDICTED", "red")
    lines = [f"null world {world.name}, {mark}: {world.prediction}"]
    for finding in verdict.findings:
        found = f"AUROC {finding.value:.3f} ({finding.ci_low:.3f} to {finding.ci_high:.3f})"
        lines.append(f"    {finding.cohort}: {finding.reason.replace('_', ' ') or found}")
    return Text("\n".join(lines), style=style)


def _finding(finding: Finding) -> str:
    if finding.reason:
        return finding.reason.replace("_", " ")
    tested = "" if math.isnan(finding.p_holm) else f", corrected p = {finding.p_holm:.2g}"
    return (
        f"{finding.first:.3f} against {finding.second:.3f}, difference {finding.difference:+.3f} "
        f"({finding.ci_low:+.3f} to {finding.ci_high:+.3f}){tested}; {finding.n_labels} labels, "
        f"{finding.n_repeats} draws, {finding.n_patients} patients"
    )
