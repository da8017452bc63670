"""Writes the report of a synthetic ECG: what a reader sees on the tracing, in the manner of his hospital.

Readers use synonyms, hedge, change the order, leave things out, add boilerplate, and now and then see what is not
there. They know neither echo, nor rare diseases, nor risk factors: nothing but findings and measurements comes in.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np


@dataclass(frozen=True)
class Style:
    """How the readers of a hospital write."""

    phrases: str
    """Which synonym list of `report_phrases.json`."""
    omit_finding: float
    """Chance that a present finding is not mentioned."""
    features: float
    """Chance that a report describes waveforms at all; the rest name diagnoses only."""
    measurements: float
    hedge: float
    invent: float
    """Chance of a finding that is not there."""
    boilerplate: float
    joiner: str
    openings: tuple[str, ...]
    hedges: tuple[str, ...]
    closings: tuple[str, ...]


@dataclass(frozen=True)
class Words:
    """What a language calls what every report may hold."""

    abnormal: str
    rate: str
    pr: str
    capitals: bool = False


ENGLISH_WORDS = Words("Abnormal ECG", "rate", "PR")
MACHINE_WORDS = Words("ABNORMAL ECG", "rate", "PR", capitals=True)

STYLES: dict[str, Style] = {
    "clinical": Style(
        phrases="clinical",
        omit_finding=0.10,
        features=0.32,
        measurements=0.15,
        hedge=0.15,
        invent=0.03,
        boilerplate=0.35,
        joiner=". ",
        openings=("12-lead ECG", "ECG", "Resting electrocardiogram", "Routine ECG"),
        hedges=("possible {}", "probable {}", "consistent with {}", "{}, cannot be excluded", "suggestive of {}"),
        closings=(
            "Clinical correlation advised",
            "No significant change from previous tracing",
            "No previous tracing for comparison",
            "Please correlate with symptoms",
        ),
    ),
    "machine": Style(
        phrases="machine",
        omit_finding=0.07,
        features=0.12,
        measurements=0.22,
        hedge=0.20,
        invent=0.04,
        boilerplate=0.6,
        joiner="\n",
        openings=("*** AUTOMATED ANALYSIS ***", "COMPUTER INTERPRETATION"),
        hedges=("POSSIBLE {}", "PROBABLE {}", "CANNOT RULE OUT {}", "CONSIDER {}"),
        closings=("UNCONFIRMED REPORT", "UNCONFIRMED ANALYSIS - MD MUST REVIEW", "REVIEWED BY PHYSICIAN"),
    ),
    "narrative": Style(
        phrases="narrative",
        omit_finding=0.12,
        features=0.30,
        measurements=0.15,
        hedge=0.2,
        invent=0.03,
        boilerplate=0.4,
        joiner="; ",
        openings=("Recorded at rest", "Technically adequate recording", "Ward tracing"),
        hedges=("perhaps {}", "{} is likely", "there may be {}", "the appearance would fit {}"),
        closings=("discussed on the ward round", "for review in clinic", "similar to earlier recordings"),
    ),
}

_NORMAL = "normal_ecg"
_RHYTHM_FIRST = 0.9
_MARK_ABNORMAL = 0.35
_INVENTED = ("nonspecific_st_t_changes", "left_atrial_enlargement", "left_axis_deviation", "premature_atrial_complexes")
"""What readers see too often."""
_RHYTHMS = frozenset(
    {
        "sinus_rhythm",
        "sinus_bradycardia",
        "sinus_tachycardia",
        "sinus_arrhythmia",
        "atrial_fibrillation",
        "atrial_flutter",
        "supraventricular_tachycardia",
        "junctional_rhythm",
        "ventricular_tachycardia",
        "paced_rhythm",
    }
)


@cache
def report_phrases() -> dict[str, dict[str, list[str]]]:
    """Finding → style → synonyms, and `features`: what can be described of it. An empty list is never named."""
    text = (resources.files("ecgclip_jax.text") / "data" / "report_phrases.json").read_text("utf-8")
    phrases: dict[str, dict[str, list[str]]] = json.loads(text)
    return phrases


def writer_fingerprint() -> str:
    """SHA-256 (16 hex digits) of phrases and styles: another wording makes another cohort."""
    styles = {name: vars(style) for name, style in sorted(STYLES.items())}
    content = json.dumps([report_phrases(), styles, sorted(_RHYTHMS), _INVENTED], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def write_report(findings: Collection[str], measurements: Mapping[str, float], style: str, seed: int) -> str:
    """The report of one ECG.

    Args:
        findings: keys of what can be seen on the tracing.
        measurements: `heart_rate_bpm`, `pr_ms`, `qrs_ms`, `qtc_ms`, `axis_deg`; NaN or absent where unknown.
        style: a key of `STYLES`.
        seed: decides every choice; equal arguments give equal text.

    Raises:
        KeyError: an unknown style or finding.
    """
    if style not in STYLES:
        raise KeyError(f"no report style {style!r}; there are {sorted(STYLES)}")
    words = MACHINE_WORDS if style == "machine" else ENGLISH_WORDS
    return compose_report(findings, measurements, STYLES[style], report_phrases(), words, seed)


def compose_report(
    findings: Collection[str],
    measurements: Mapping[str, float],
    manner: Style,
    phrases: Mapping[str, Mapping[str, list[str]]],
    words: Words,
    seed: int,
) -> str:
    """A report in any manner; see `write_report`. `phrases` are as `report_phrases` has them."""
    rng = np.random.default_rng(seed)
    noticed = _noticed(sorted(findings), manner, rng)
    described = rng.random() < manner.features
    statements = [s for f in noticed for s in _statements(phrases[f], f, described, manner, words, rng)]
    if rng.random() < manner.measurements:
        statements.insert(int(rng.integers(2)) * len(statements), _measured(measurements, words))
    if _NORMAL not in findings and rng.random() < _MARK_ABNORMAL:
        statements.append(words.abnormal)
    if not statements:
        statements.append(_measured(measurements, words))
    if rng.random() < manner.boilerplate:
        statements.insert(0, _pick(manner.openings, rng))
    if rng.random() < manner.boilerplate:
        statements.append(_pick(manner.closings, rng))
    return _joined(statements, manner.joiner)


def _noticed(findings: list[str], manner: Style, rng: np.random.Generator) -> list[str]:
    """What the reader will speak of, in his order: mostly the rhythm first."""
    seen = [f for f in findings if rng.random() >= manner.omit_finding]
    if _NORMAL in seen and "sinus_rhythm" in seen and rng.random() < 0.4:
        seen.remove("sinus_rhythm")
    if _NORMAL not in findings and rng.random() < manner.invent:
        seen.append(_pick(_INVENTED, rng))
    order = [seen[i] for i in rng.permutation(len(seen))]
    return sorted(order, key=lambda f: f not in _RHYTHMS) if rng.random() < _RHYTHM_FIRST else order


def _statements(
    entry: Mapping[str, list[str]],
    finding: str,
    described: bool,
    manner: Style,
    words: Words,
    rng: np.random.Generator,
) -> list[str]:
    """The diagnosis, hedged or not, and perhaps what was seen; nothing where a concept is never named."""
    statements = []
    if entry[manner.phrases]:
        phrase = _pick(entry[manner.phrases], rng)
        hedged = finding != _NORMAL and finding not in _RHYTHMS and rng.random() < manner.hedge
        statements.append(_pick(manner.hedges, rng).format(phrase) if hedged else phrase)
    if described and rng.random() < 0.7:
        feature = _pick(entry["features"], rng)
        statements.append(feature.upper() if words.capitals else feature)
    return statements


def _measured(measurements: Mapping[str, float], words: Words) -> str:
    """Some of the numbers a cart prints."""
    known = {name: round(v) for name, v in measurements.items() if not math.isnan(v)}
    parts = [
        (words.rate, "heart_rate_bpm", "/min"),
        (words.pr, "pr_ms", "ms"),
        ("QRS", "qrs_ms", "ms"),
        ("QTc", "qtc_ms", "ms"),
    ]
    line = ", ".join(f"{name} {known[key]} {unit}" for name, key, unit in parts if key in known)
    return line.upper() if words.capitals else line


def _pick(choices: Collection[str], rng: np.random.Generator) -> str:
    return tuple(choices)[int(rng.integers(len(choices)))]


def _joined(statements: list[str], joiner: str) -> str:
    text = joiner.join(s[0].upper() + s[1:] if joiner == ". " else s for s in statements if s)
    return text if joiner == "\n" else text[0].upper() + text[1:] + "."
