"""What an objective learns beside texts, as extras of every batch: labels, measurements, risk, follow-up.

All of it is looked up in the cohorts' tables once per run. What an objective cannot learn from is refused here, before
the first step: a label that nobody has, a measurement that never varies, a risk that is nowhere known.
"""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64

from ecgclip_jax.data.batch import Extras
from ecgclip_jax.data.index import SUMMARY_FILE, RunIndex
from ecgclip_jax.data.labels import Labels, label_matrix, record_concepts, require_vocabulary
from ecgclip_jax.data.sources import CLINICAL_COLUMNS
from ecgclip_jax.metrics.score2 import OLDEST_YEARS, RiskFactors, ten_year_risk
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.objectives import ClefSpec, ObjectiveSpec, RiskSpec, SupervisedSpec, SurvivalSpec
from ecgclip_jax.text.concepts import CONCEPTS, concepts_in
from ecgclip_jax.text.report_labels import REPORT_RULES

RISK_ATTRIBUTES = (
    "age_years",
    "sex",
    "smoker",
    "diabetes",
    "systolic_mmhg",
    "total_cholesterol_mmol_l",
    "hdl_cholesterol_mmol_l",
    "height_cm",
    "weight_kg",
)
"""The metadata that CLEF's completeness counts (ours; the paper has A attributes and does not list them in what is
public). Height and weight do not enter the risk."""
_SETTING = "objective.label_vocabulary"
_SCALING = "measurement_scaling"


class TargetError(UserError):
    """Targets that this run's records do not hold; the message says what is missing and what to do."""


def target_extras(objective: ObjectiveSpec, index: RunIndex) -> Extras:
    """What `objective` needs of the records of a run, by row of the index; empty for one that needs texts alone.

    - `labels` `[rows, C]` 0 or 1, for a supervised objective, in the order of its `labels`
    - `measurements` `[rows, M]` in standard deviations from the mean of the run's records (`measurement_scaling`)
    - `risk` `[rows]` ten-year risk as a fraction, and `risk_completeness` `[rows]`, the known share of
      `RISK_ATTRIBUTES`, for CLEF
    - `follow_up_years` and `event` `[rows]` (1 = event at that time, 0 = censored then), for survival

    Raises:
        TargetError, LabelError, RunIndexError: something the objective asks for is in no record, or never varies.
    """
    if isinstance(objective, SupervisedSpec):
        return _labels(objective, index) | _measurements(objective, index)
    if isinstance(objective, ClefSpec):
        return _risk(objective.risk, index)
    if isinstance(objective, SurvivalSpec):
        return _follow_up(index)
    return Extras({}, {})


def measurement_scaling(objective: ObjectiveSpec, index: RunIndex) -> dict[str, dict[str, float]]:
    """Mean and standard deviation (population) of each measurement over the run's records, by name.

    Raises:
        RunIndexError: a name that is no numeric field. TargetError: nowhere known, or the same everywhere.
    """
    names = objective.measurements if isinstance(objective, SupervisedSpec) else ()
    return {name: _mean_and_sd(name, _measured(name, index)) for name in names}


def target_facts(objective: ObjectiveSpec, index: RunIndex) -> dict[str, Any]:
    """What a run must remember to turn predictions back into units: for `RunIndex.save(folder, facts)`.

    Raises:
        TargetError, LabelError, RunIndexError: as `target_extras`; a run that cannot learn is refused as it is opened.
    """
    target_extras(objective, index)
    return {_SCALING: measurement_scaling(objective, index)}


def saved_measurement_scaling(run: str | Path) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of each measurement, as the run's folder remembers them."""
    summary = json.loads((Path(run) / SUMMARY_FILE).read_text(encoding="utf-8"))
    scaling: dict[str, dict[str, float]] = summary.get(_SCALING, {})
    return scaling


def _labels(objective: SupervisedSpec, index: RunIndex) -> Extras:
    if not objective.labels:
        return Extras({}, {})
    _require_concepts(objective)
    found = _found_labels(objective, index)
    for label, positive, known in zip(found.concepts, found.positive.T, found.known.T, strict=True):
        n_positive, n_known = int((positive & known).sum()), int(known.sum())
        if n_positive in (0, n_known):
            who = "no record has" if not n_positive else "every record has"
            raise TargetError(f"label {label!r}: {who} it ({n_known} records with known labels); leave it out")
    return Extras({"labels": (found.positive & found.known).astype(np.float32)}, {"labels": found.known})


def _found_labels(objective: SupervisedSpec, index: RunIndex) -> Labels:
    """What each record's codes say, or its report; a record without the one asked for is unknown."""
    if objective.label_vocabulary == REPORT_RULES:
        return label_matrix(index.reports.concepts(), objective.labels)
    codes, vocabularies = index.column("label_codes"), index.column("label_vocabulary")
    return label_matrix(record_concepts(vocabularies, codes, objective.label_vocabulary, _SETTING), objective.labels)


def _require_concepts(objective: SupervisedSpec) -> None:
    there = tuple(CONCEPTS)
    if objective.label_vocabulary != REPORT_RULES:
        require_vocabulary(objective.label_vocabulary, _SETTING)
        there = concepts_in(objective.label_vocabulary, wide=True)
    for label in objective.labels:
        if label not in there:
            near = difflib.get_close_matches(label, there, n=3)
            hint = f"near it: {', '.join(near)}" if near else f"for example {', '.join(there[:3])}"
            raise TargetError(
                f"objective.labels: {label!r} is no concept of the vocabulary {objective.label_vocabulary!r}; {hint}"
            )


def _measured(name: str, index: RunIndex) -> Float64[np.ndarray, " records"]:
    """A numeric field; an age that the cohort hides behind a bound is not measured."""
    values = index.numbers(name)
    if name == "age_years":
        values[np.asarray(index.column("age_censored"), bool)] = np.nan
    return values


def _mean_and_sd(name: str, values: Float64[np.ndarray, " records"]) -> dict[str, float]:
    known = values[~np.isnan(values)]
    if not len(known):
        raise TargetError(f"measurement {name!r} is known of none of the {len(values)} records; leave it out")
    if known.min() == known.max():
        raise TargetError(
            f"measurement {name!r} is {known[0]:g} in all {len(known)} records that know it; there is nothing to learn"
        )
    return {"mean": float(known.mean()), "sd": float(known.std())}


def _measurements(objective: SupervisedSpec, index: RunIndex) -> Extras:
    if not objective.measurements:
        return Extras({}, {})
    scaling = measurement_scaling(objective, index)
    columns = [(_measured(name, index) - of["mean"]) / of["sd"] for name, of in scaling.items()]
    return Extras.from_columns({"measurements": np.stack(columns, axis=1)})


def _risk(spec: RiskSpec, index: RunIndex) -> Extras:
    known = {name: index.numbers(name) for name in RISK_ATTRIBUTES if name != "sex"}
    # A lower bound tells the risk only where every greater age counts the same.
    bounded = np.asarray(index.column("age_censored"), bool) & (known["age_years"] < OLDEST_YEARS)
    known["age_years"][bounded] = np.nan
    sex = index.column("sex")
    known["sex"] = np.array([{"male": 1.0, "female": 0.0}.get(s, np.nan) for s in sex], np.float64)
    people = RiskFactors(
        age_years=known["age_years"],
        male=known["sex"],
        smoker=known["smoker"],
        diabetes=known["diabetes"],
        systolic_mmhg=known["systolic_mmhg"],
        total_cholesterol_mmol_l=known["total_cholesterol_mmol_l"],
        hdl_cholesterol_mmol_l=known["hdl_cholesterol_mmol_l"],
    )
    risk = ten_year_risk(people, spec.region, spec.older_from_years)
    if np.isnan(risk).all():
        raise TargetError(f"CLEF needs risk scores, but no record has all that SCORE2 takes: {_coverage(known, index)}")
    completeness = np.mean([~np.isnan(known[name]) for name in RISK_ATTRIBUTES], axis=0)
    return Extras.from_columns({"risk": risk, "risk_completeness": completeness})


def _coverage(known: dict[str, Float64[np.ndarray, " records"]], index: RunIndex) -> str:
    counts = ", ".join(f"{name} known of {int((~np.isnan(v)).sum())}" for name, v in known.items())
    return f"of {len(index)} records, {counts}{_older_schema(index)}"


def _older_schema(index: RunIndex) -> str:
    older = [c.name for c in index.cohorts if not set(CLINICAL_COLUMNS) <= set(c.table.column_names)]
    return f". Prepared before these fields were introduced, prepare again: {', '.join(older)}" if older else ""


def _follow_up(index: RunIndex) -> Extras:
    years, event = index.numbers("follow_up_years"), index.numbers("event_observed")
    known: Bool[np.ndarray, " records"] = ~np.isnan(years) & ~np.isnan(event)
    if (years[known] < 0).any():
        raise TargetError("follow_up_years is negative in some records; mend the cohort and prepare it again")
    if not known.any():
        raise TargetError(
            f"a survival objective needs follow-up, but none of the {len(index)} records has one{_older_schema(index)}"
        )
    if not event[known].any():
        raise TargetError(f"none of the {int(known.sum())} records with follow-up has an event; nothing can be learned")
    unknown = np.where(known, 0.0, np.nan)
    return Extras.from_columns({"follow_up_years": years + unknown, "event": event + unknown})
