"""The claims of a suite, named before any figure was seen, each with what was found and its verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from ecgclip_jax.evaluation.suites.claims import Finding, Verdict
from ecgclip_jax.reporting.content import FigureContent, Section, TableContent, drawn, with_interval
from ecgclip_jax.reporting.suite_figures import claim_forest
from ecgclip_jax.reporting.suite_rows import METRICS, percent
from ecgclip_jax.spec.suites import Claim

PANELS = 4
"""Claims drawn side by side."""


def claims_section(verdicts: Sequence[Verdict]) -> Section:
    """Verdicts, forest plots of the differences, and every finding."""
    notes = [
        "Superiority: two-sided paired permutation of patients, corrected over all tests of these claims (Holm); a "
        "filled mark holds. Non-inferiority: the whole interval lies above the dashed margin. A claim that does not "
        "hold is a result.",
    ]
    facts = [(_verdict(v), v.claim.text) for v in verdicts]
    return Section("Claims and verdicts", notes, facts, [*_forests(verdicts), _findings(verdicts)])


def _verdict(v: Verdict) -> str:
    """`✓ holds (9 of 10 tests)`."""
    several = f" ({v.n_holding} of {len(v.findings)} tests)" if len(v.findings) > 1 else ""
    return f"{'✓ holds' if v.holds else '✗ does not hold'}{several}"


def _forests(verdicts: Sequence[Verdict]) -> list[FigureContent]:
    """Claims of a kind, a figure and a place stand together; those of one test only share a panel."""
    groups: dict[tuple[str, str, str], list[Verdict]] = {}
    for v in verdicts:
        groups.setdefault((v.claim.kind, v.claim.on, v.claim.metric), []).append(v)
    return [_forest(own[start : start + PANELS]) for own in groups.values() for start in range(0, len(own), PANELS)]


def _forest(verdicts: Sequence[Verdict]) -> FigureContent:
    claim = verdicts[0].claim
    several = claim.on == "each"
    rows = [
        {
            "panel": _short(v.claim) if several else "difference",
            "row": f.cohort if several else f"{_short(v.claim)}".replace("\n", ", "),
            "value": f.difference,
            "ci_low": f.ci_low,
            "ci_high": f.ci_high,
            "holds": f.holds,
        }
        for v in verdicts
        for f in v.findings
    ]
    margin = -claim.margin if claim.kind == "non_inferior" else math.nan
    references = dict.fromkeys((str(r["panel"]) for r in rows), margin)
    metric = METRICS[claim.metric].replace("\n", " ")
    drawing = claim_forest(pd.DataFrame(rows), references, f"macro {metric}")
    against = f"{claim.first} − {claim.second}, {claim.protocol.replace('_', '-')}d"
    kind = f"non-inferiority, margin {claim.margin:g}" if claim.kind == "non_inferior" else "superiority"
    return drawn(drawing, f"{against}: macro {metric}, {kind}.")


def _short(claim: Claim) -> str:
    first, second = percent(claim.first_fraction), percent(claim.second_fraction)
    shares = first if first == second else f"{first} against {second}"
    return f"{shares} of labels\n{claim.label_source.replace('_', ' ')}"


def _findings(verdicts: Sequence[Verdict]) -> TableContent:
    columns = ["test", "first", "second", "difference (95 %)", "corrected p", "holds", "labels", "draws", "patients"]
    lines: list[list[str]] = []
    for v in verdicts:
        lines.append([f"{'✓' if v.holds else '✗'} {v.claim.text}"])
        lines += [_line(v.claim, f) for f in v.findings]
    note = "Labels: those in the macro mean, the same for both arms. Draws: label draws and training seeds averaged."
    return TableContent(columns, lines, title="What was found", note=note, numeric=range(1, 9))


def _line(claim: Claim, f: Finding) -> list[str]:
    if f.reason:
        return [f.cohort, "–", "–", f.reason.replace("_", " "), "–", "–", str(f.n_labels), str(f.n_repeats), "–"]
    p = "–" if math.isnan(f.p_holm) else f"{f.p_holm:.2g}"
    difference = with_interval(f.difference, f.ci_low, f.ci_high, form="+.3f")
    means = [f"{x:.3f}" for x in (f.first, f.second)]
    counts = [str(f.n_labels), str(f.n_repeats), f"{f.n_patients:,}"]
    return [f.cohort, *means, difference, p, "yes" if f.holds else "no", *counts]
