"""A model card and a TRIPOD+AI table, filled from what the run itself says; what only a person knows is left open.

TRIPOD+AI: Collins et al., BMJ 2024;385:e078378, 27 items; their wording here is ours and short.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from ecgclip_jax.evaluation.suites.claims import Verdict
from ecgclip_jax.reporting.content import Section, TableContent
from ecgclip_jax.reporting.suite_rows import PROTOCOLS, SuiteTable, headline, percent

OPEN = "open: a person has to fill this in"


def card_sections(run: Path, table: SuiteTable, verdicts: Sequence[Verdict]) -> list[Section]:
    """The card and the table of items of a run folder."""
    facts = json.loads((run / "experiment.json").read_text(encoding="utf-8"))
    seen = _seen(run)
    return [_card(facts, seen, table, verdicts), _tripod(facts, seen, table, verdicts)]


def _seen(run: Path) -> str:
    """What pre-training saw: cohort, split, ECGs, patients."""
    seen = pq.read_table(run / "exposure.parquet", columns=["cohort", "version", "split", "patient_id"]).to_pandas()
    groups = seen.groupby(["cohort", "version", "split"], sort=True)["patient_id"]
    return "; ".join(f"{c} {v}/{s}: {len(p):,} ECGs of {p.nunique():,} patients" for (c, v, s), p in groups)


def _card(facts: Mapping[str, Any], seen: str, table: SuiteTable, verdicts: Sequence[Verdict]) -> Section:
    experiment = facts["experiment"]
    encoder, signal = experiment["ecg_encoder"], experiment["signal"]
    held = sum(v.holds for v in verdicts)
    rows = [
        ("model", f"{experiment['name']}: {experiment['summary']}"),
        ("encoder", f"{encoder['kind']}-{encoder.get('depth', '')}, objective {experiment['objective']['kind']}"),
        ("input", f"{signal['name']}: {_input(signal)}"),
        ("trained on", seen),
        ("training", f"{experiment['run']['steps']} steps of {experiment['data']['batch_global']} ECGs, seed "
                     f"{experiment['seed']}, on {facts.get('n_devices')} × {facts.get('device_kind')}"),
        ("access and licences", f"{facts.get('access')}; {', '.join(facts.get('licences', []))}"),
        ("evaluated", f"{headline(table.rows)} Suite {table.spec.name}, fingerprint {table.spec.fingerprint()}."),
        ("claims", f"{held} of {len(verdicts)} hold" if verdicts else "the suite makes none"),
        ("intended use", "research; not a medical device, and no use with patients has been studied"),
        ("not for", "diagnosis, triage or monitoring; ECGs of children, implanted leads or other lead placements "
                    "unless a test above names them"),
        ("known limits", _limits(table)),
        ("software", f"commit {facts.get('git_commit')}; "
                     + ", ".join(f"{name} {version}" for name, version in facts.get("versions", {}).items())),
    ]  # fmt: skip
    return Section("Model card", facts=rows)


def _input(signal: Mapping[str, Any]) -> str:
    band = signal.get("bandpass")
    filters = f", {band['low_hz']:g}–{band['high_hz']:g} Hz" if band else ""
    return f"{len(signal['leads'])} leads, {signal['rate_hz']:g} Hz, {signal['samples']} samples{filters}"


def _limits(table: SuiteTable) -> str:
    synthetic = bool(table.rows["synthetic"].all())
    world = "every number is of a synthetic world and says nothing about patients; " if synthetic else ""
    return f"{world}labels derived from reports repeat the readers' habits; see what was not scored and not run"


def _tripod(facts: Mapping[str, Any], seen: str, table: SuiteTable, verdicts: Sequence[Verdict]) -> Section:
    rows = [[str(number), item, told] for number, (item, told) in enumerate(_items(facts, seen, table, verdicts), 1)]
    n_open = sum(row[2].startswith(OPEN) for row in rows)
    n_partly = sum(OPEN in row[2] for row in rows) - n_open
    note = (
        f"TRIPOD+AI (BMJ 2024;385:e078378), item names in our words. {len(rows) - n_open - n_partly} items are "
        f"filled from the run, {n_partly} in part, {n_open} are open."
    )
    return Section("TRIPOD+AI", [note], blocks=[TableContent(["item", "about", "here"], rows, numeric=())])


def _items(
    facts: Mapping[str, Any], seen: str, table: SuiteTable, verdicts: Sequence[Verdict]
) -> list[tuple[str, str]]:
    spec, experiment = table.spec, facts["experiment"]
    optimizer, signal = experiment["optimizer"], experiment["signal"]
    claims = "; ".join(f"{v.claim.name} {'holds' if v.holds else 'does not hold'}" for v in verdicts) or "no claims"
    fractions = ", ".join(percent(f) for f in spec.fractions)
    protocols = ", ".join(PROTOCOLS.get(p, p) for p in spec.protocols)
    return [
        ("title", f"{spec.name}: development and evaluation of {experiment['name']} (suggested)"),
        ("abstract", f"{OPEN}; the claims and their verdicts above are its results"),
        ("background: context, target population, inequalities", OPEN),
        ("objectives", "; ".join(claim.text for claim in spec.claims) or spec.summary),
        ("data sources and dates", f"pre-training: {seen}; tests: {_tests(table)}. Dates: {OPEN}"),
        ("participants: setting, eligibility, treatments", f"records as the cohorts' cards say; {OPEN}"),
        ("data preparation", f"{_input(signal)}, unit {signal['unit']}, normalisation {signal['normalisation']}; no "
                             "record repaired, every dropped one counted with its reason in the cohort's audit"),
        ("outcome: definition, assessors, blinding", "each task with rule and source in the registry of tasks; source "
         f"of labels: {', '.join(sorted({s.source for s in table.strata}))}. Who assessed: {OPEN}"),
        ("predictors", f"the tracing alone ({len(signal['leads'])} leads); baselines: age, sex, rate, intervals"),
        ("sample size", f"what the cohorts hold; no figure below {spec.min_test_positives} test positives, no macro "
                        f"mean below {spec.macro_min_labels} tasks"),
        ("missing data", "unknown labels are left out of every figure, never counted as absent; missing leads by the "
                         f"input's rule ({signal['missing_leads']})"),
        ("analysis: models, tuning, internal validation", f"{protocols}; {fractions} of the labels, {spec.draws} "
         f"draws, {spec.seeds} seeds; chosen on validation; pre-training {experiment['objective']['kind']}, "
         f"rate {optimizer['peak_lr']:g}; {spec.bootstrap_replicates} patient draws, {spec.permutations} permutations"),
        ("class imbalance", "no resampling; case-enriched samples are weighted back to their source's prevalence"),
        ("fairness", f"subgroup rows in results.parquet where there are any; a judgement of them: {OPEN}"),
        ("model output", "a score per task; thresholds and temperature fitted on validation, refitted by calibrate"),
        ("training against evaluation data", "internal and external tests apart; patients seen in pre-training are "
                                             "refused, excluded or flagged by the run's exposure table"),
        ("ethical approval", OPEN),
        ("open science: funding, conflicts, protocol, registration, data, code",
         f"claims fixed in the suite {spec.fingerprint()} before any figure; code: commit {facts.get('git_commit')}; "
         f"licences {', '.join(facts.get('licences', []))}. Funding, conflicts, registration: {OPEN}"),
        ("patient and public involvement", OPEN),
        ("participants: flow and characteristics", f"counts per task and test in results.parquet; {_counts(table)}; "
                                                   "age, sex and every dropped record in the cohorts' cards"),
        ("numbers in each analysis", "n, positives, patients and prevalence stand in every row of results.parquet"),
        ("full model", f"checkpoint and preprocessing in the run folder, experiment {facts.get('fingerprint')}"),
        ("performance with intervals, by cluster", f"macro means and tasks by test, above; {claims}"),
        ("results of updating", "none in this suite; ecgclip calibrate writes operating points per cohort"),
        ("interpretation", OPEN),
        ("limitations", f"{_limits(table)}; a person's view of them: {OPEN}"),
        ("use: poor input, users' skill, next steps", f"quality flags travel with each record; {OPEN}"),
    ]  # fmt: skip


def _tests(table: SuiteTable) -> str:
    return "; ".join(f"{name}: {', '.join(test.name for test in own.tests)}" for name, own in table.real_sets.items())


def _counts(table: SuiteTable) -> str:
    """Largest number of records and patients that any task of a test has."""
    own = table.rows[table.rows["home"].isin(table.real_sets)]
    largest: pd.DataFrame = own.groupby("split", sort=False)[["n", "n_patients"]].max()
    return ", ".join(
        f"{split} {int(n):,} ECGs of {int(p):,} patients"
        for split, n, p in zip(largest.index, largest["n"], largest["n_patients"], strict=True)
        if n == n and p == p
    )
