"""Echocardiograms of MIMIC-IV-ECHO, which ECG belongs to which of them, and what they found.

Names of measurements and wordings of results are those that public code with access to the table reads; the table was
not at hand. What a release names otherwise is missing here, never misread.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from tfds_builders.mimic_iv_ecg.tables import SECONDS_PER_DAY, echo_number, seconds, transthoracic

Pairing = Literal["nearest_ecg", "every_ecg"]
NO_FLAG: Final = "no_flag"
"""The code of an echo without any of the findings: without any code an ECG would count as unlabelled."""
FLAGS: Final = (
    "lvef_lte_45_flag",
    "lvwt_gte_13_flag",
    "rv_systolic_dysfunction_moderate_or_greater_flag",
    "pericardial_effusion_moderate_large_flag",
    "tr_max_gte_32_flag",
)
"""EchoNext's findings that can be told from fields whose names and wordings are known, with its thresholds."""


@dataclass(frozen=True)
class Target:
    """A measured number: its name with unit, and what a heart can have."""

    name: str
    limits: tuple[float, float]


TARGETS: Final[Mapping[str, Target]] = {
    "lvef": Target("lvef_percent", (1.0, 95.0)),
    "ivs_thickness": Target("ivs_thickness_cm", (0.2, 5.0)),
    "inferolateral_thickness": Target("inferolateral_thickness_cm", (0.2, 5.0)),
    "tr_velocity": Target("tr_max_velocity_m_s", (0.2, 8.0)),
    "tr_mmhg": Target("tr_gradient_mmhg", (1.0, 200.0)),
    "tapse": Target("tapse_cm", (0.2, 5.0)),
    "rv_diam": Target("rv_basal_diameter_cm", (1.0, 9.0)),
    "av_pk_vel": Target("av_peak_velocity_m_s", (0.2, 9.0)),
    "av_mean_grad": Target("av_mean_gradient_mmhg", (0.5, 150.0)),
    "av_area_continuity": Target("av_area_cm2", (0.1, 9.0)),
}
"""Measurement of the table → number. A value beyond the limits is in another unit or a slip, and left out (ours)."""
WORDS: Final = ("rv_function", "pericardial_effusion")
_MODERATE_RV: Final = re.compile(r"(?!mild).*(?:moderate|sever|depressed)")
_MODERATE_EFFUSION: Final = re.compile(r"(?:moderate|large)\b")


@dataclass(frozen=True)
class Echo:
    """One transthoracic study."""

    time_s: float
    results: Mapping[str, str]
    """Of `TARGETS` and `WORDS`, verbatim."""


def echos(path: Path) -> dict[str, list[Echo]]:
    """By subject: the studies with at least one number of `TARGETS`, in the order of time.

    What a subject had measured at one instant is one study.
    """
    found: dict[tuple[str, float], dict[str, str]] = defaultdict(dict)
    for row in transthoracic(path, {*TARGETS, *WORDS}):
        if (time_s := seconds(row["measurement_datetime"] or "")) is not None:
            found[row["subject_id"], time_s].setdefault(row["measurement"], row["result"])
    studies: dict[str, list[Echo]] = defaultdict(list)
    for (subject, time_s), results in sorted(found.items()):
        if numbers(results):
            studies[subject].append(Echo(time_s, results))
    return dict(studies)


def numbers(results: Mapping[str, str]) -> dict[str, float]:
    """The usable numbers of a study, by name with unit; of a range its middle."""
    told = {}
    for field, target in TARGETS.items():
        number = echo_number(results.get(field, ""))
        if number is not None and target.limits[0] <= number <= target.limits[1]:
            told[target.name] = number
    return told


def findings(results: Mapping[str, str]) -> tuple[str, ...]:
    """The flags of a study, `no_flag` if it has none; nothing where its LVEF is not stated.

    As in EchoNext, a field that is missing counts as no finding; without an LVEF so little is known that the study
    labels nothing (ours).
    """
    told = numbers(results)
    if "lvef_percent" not in told:
        return ()
    wall_cm = max(told.get("ivs_thickness_cm", 0.0), told.get("inferolateral_thickness_cm", 0.0))
    raised = (
        told["lvef_percent"] <= 45.0,
        wall_cm >= 1.3,
        _MODERATE_RV.match(results.get("rv_function", "").strip().lower()) is not None,
        _MODERATE_EFFUSION.match(results.get("pericardial_effusion", "").strip().lower()) is not None,
        told.get("tr_max_velocity_m_s", 0.0) >= 3.2,
    )
    return tuple(flag for flag, is_raised in zip(FLAGS, raised, strict=True) if is_raised) or (NO_FLAG,)


@dataclass(frozen=True)
class PairingRule:
    """Which ECG an echo is about."""

    window_days: float = 30.0
    """How far apart they may be."""
    pairing: Pairing = "nearest_ecg"
    """Of each echo the nearest ECG alone, or all ECGs within the window, each with the echo nearest to it."""
    ecg_first: bool = False
    """Only ECGs at the time of the echo or before it, as EchoNext has them."""

    def gap_days(self, ecg_s: float, echo: Echo) -> float | None:
        """Echo minus ECG; None if they may not be paired."""
        gap = (echo.time_s - ecg_s) / SECONDS_PER_DAY
        return None if abs(gap) > self.window_days or (self.ecg_first and gap < 0) else gap


def paired(
    subjects: Sequence[str], ecg_s: Sequence[float | None], studies: Mapping[str, Sequence[Echo]], rule: PairingRule
) -> list[tuple[Echo, float] | None]:
    """For every ECG its echo and the gap in days (echo minus ECG); None for an ECG that is left out.

    Of two equally near the earlier one is taken.
    """
    of_subject: dict[str, list[int]] = defaultdict(list)
    for i, (subject, time_s) in enumerate(zip(subjects, ecg_s, strict=True)):
        if time_s is not None and subject in studies:
            of_subject[subject].append(i)
    pairs: list[tuple[Echo, float] | None] = [None] * len(subjects)
    for subject, ecgs in of_subject.items():
        for i, echo, gap in _of_one_subject([(i, ecg_s[i] or 0.0) for i in ecgs], studies[subject], rule):
            pairs[i] = (echo, gap)
    return pairs


def _of_one_subject(
    ecgs: Sequence[tuple[int, float]], studies: Sequence[Echo], rule: PairingRule
) -> Iterable[tuple[int, Echo, float]]:
    near = [
        (abs(gap), time_s, i, echo, gap)
        for i, time_s in ecgs
        for echo in studies
        if (gap := rule.gap_days(time_s, echo)) is not None
    ]
    if rule.pairing == "nearest_ecg":
        best: dict[float, tuple[float, float, int, Echo, float]] = {}
        for pair in near:
            instant = pair[3].time_s
            best[instant] = min(best.get(instant, pair), pair, key=lambda p: p[:3])
        near = list(best.values())
    nearest: dict[int, tuple[float, float, int, Echo, float]] = {}
    for pair in near:
        nearest[pair[2]] = min(nearest.get(pair[2], pair), pair, key=lambda p: (p[0], p[3].time_s))
    return [(i, echo, gap) for _, _, i, echo, gap in nearest.values()]
