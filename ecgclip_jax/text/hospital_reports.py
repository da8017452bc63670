"""Reports of the ten synthetic hospitals: the three manners of the report writer, a telegraphic and two German ones.

As everywhere in the synthetic world nothing but what stands on the tracing comes in, and no wording is a prompt's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from functools import cache
from importlib import resources

from ecgclip_jax.text.report_writer import (
    ENGLISH_WORDS,
    STYLES,
    Style,
    Words,
    compose_report,
    report_phrases,
    write_report,
    writer_fingerprint,
)

_GERMAN_WORDS = Words("Auffälliges EKG", "Frequenz", "PQ")
_OWN_STYLES: Mapping[str, Style] = {
    "telegram": Style(
        phrases="clinical",
        omit_finding=0.15,
        features=0.08,
        measurements=0.10,
        hedge=0.10,
        invent=0.02,
        boilerplate=0.05,
        joiner=", ",
        openings=("ECG",),
        hedges=("? {}", "?? {}"),
        closings=("d/w senior", "repeat"),
    ),
    "german": Style(
        phrases="german",
        omit_finding=0.10,
        features=0.30,
        measurements=0.20,
        hedge=0.18,
        invent=0.03,
        boilerplate=0.35,
        joiner=". ",
        openings=("Ruhe-EKG", "12-Kanal-EKG", "Befund"),
        hedges=("Verdacht auf {}", "mögliche Diagnose: {}", "{} nicht auszuschließen", "am ehesten {}"),
        closings=("Klinische Korrelation empfohlen", "Im Vergleich zum Vorbefund unverändert", "Kontrolle erbeten"),
    ),
    "german_short": Style(
        phrases="german_short",
        omit_finding=0.15,
        features=0.05,
        measurements=0.25,
        hedge=0.12,
        invent=0.03,
        boilerplate=0.15,
        joiner=", ",
        openings=("EKG",),
        hedges=("V.a. {}", "{}?"),
        closings=("Kontr.", "s. Vor-EKG"),
    ),
}
HOSPITAL_STYLES: Mapping[str, Style] = {**STYLES, **_OWN_STYLES}


@cache
def german_phrases() -> dict[str, dict[str, list[str]]]:
    """Finding → list → synonyms, as `report_phrases`; an empty list is never named."""
    text = (resources.files("ecgclip_jax.text") / "data" / "report_phrases_de.json").read_text("utf-8")
    phrases: dict[str, dict[str, list[str]]] = json.loads(text)
    return phrases


def write_hospital_report(findings: Collection[str], measurements: Mapping[str, float], style: str, seed: int) -> str:
    """The report of one ECG; see `write_report`.

    Raises:
        KeyError: an unknown style or finding.
    """
    if style in STYLES:
        return write_report(findings, measurements, style, seed)
    if style not in _OWN_STYLES:
        raise KeyError(f"no report style {style!r}; there are {sorted(HOSPITAL_STYLES)}")
    german = style.startswith("german")
    phrases, words = (german_phrases(), _GERMAN_WORDS) if german else (report_phrases(), ENGLISH_WORDS)
    return compose_report(findings, measurements, _OWN_STYLES[style], phrases, words, seed)


def hospital_writer_fingerprint() -> str:
    """SHA-256 (16 hex digits) of all phrases and styles."""
    styles = {name: vars(style) for name, style in sorted(_OWN_STYLES.items())}
    content = json.dumps([writer_fingerprint(), german_phrases(), styles, vars(_GERMAN_WORDS)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]
