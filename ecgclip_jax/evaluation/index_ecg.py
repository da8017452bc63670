"""Which of a patient's ECGs stands for him: the first, or the one nearest before his echocardiogram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from ecgclip_jax.data.sources import CohortSplit
from ecgclip_jax.evaluation.registry import IndexRule
from ecgclip_jax.evaluation.tasks import patient_index

GAP, DAY = "echo_gap_days", "days_since_first_ecg"


@dataclass(frozen=True)
class EchoWindow:
    """How far the echo may lie from the ECG: 30 days after it, or 1, 90, 365 and before it as sensitivity analyses."""

    days: float = 30.0
    side: Literal["ecg_before_echo", "ecg_after_echo"] = "ecg_before_echo"

    @property
    def name(self) -> str:
        """As tables have it."""
        side = "before" if self.side == "ecg_before_echo" else "after"
        return f"{self.days:g} {'day' if self.days == 1 else 'days'} {side} the echo"

    def holds(self, gap_days: Float[np.ndarray, " records"]) -> Bool[np.ndarray, " records"]:
        """Whether echo minus ECG lies in the window; never where there was no echo."""
        if self.side == "ecg_before_echo":
            return np.asarray((gap_days >= 0) & (gap_days <= self.days))
        return np.asarray((gap_days < 0) & (gap_days >= -self.days))


DEFAULT_WINDOW = EchoWindow()
SENSITIVITY_WINDOWS = (
    EchoWindow(1.0),
    EchoWindow(90.0),
    EchoWindow(365.0),
    EchoWindow(30.0, "ecg_after_echo"),
)
"""Beside the default, the 30 days before an echo."""


def index_ecg(split: CohortSplit, rule: IndexRule, window: EchoWindow) -> Bool[np.ndarray, " records"]:
    """One record per patient at most. The choice never looks at labels.

    The first ECG is the earliest where the cohort states days, else the first of the table; of an echo it is the ECG
    nearest before (or after) it. Where no record states how far its echo lies, its publisher paired them, and the first
    stands. Only first windows of a recording count; a record without a patient id is a patient of its own.
    """
    first_window = np.array(split.table.column("window_index").to_pylist()) == 0
    eligible, order = first_window, _order(split)
    if rule == "before_echo" and GAP in split.numeric_names:
        gap_days = split.numbers(GAP)
        eligible, order = first_window & window.holds(gap_days), np.abs(gap_days)
    patient, _ = patient_index(split.table)
    rows = np.flatnonzero(eligible)
    rows = rows[np.lexsort((rows, order[rows], patient[rows]))]
    _, firsts = np.unique(patient[rows], return_index=True)
    chosen = np.zeros(len(split), bool)
    chosen[rows[firsts]] = True
    return chosen


def _order(split: CohortSplit) -> Float[np.ndarray, " records"]:
    return split.numbers(DAY) if DAY in split.numeric_names else np.arange(len(split), dtype=np.float64)
