"""The card of a prepared cohort: one self-contained page beside the data that says what is in it and what is odd.

It is drawn from the folder alone, mostly from its `audit.json`, which already holds no more than the access class
allows. Single ECGs are shown of open cohorts only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ecgclip_jax.data.overlap import SharedWith, shared_with_prepared
from ecgclip_jax.data.sources import open_cohort
from ecgclip_jax.explain.ecg_page import draw_ecg_page
from ecgclip_jax.reporting.content import FigureContent, Section, TableContent, drawn, pictured
from ecgclip_jax.reporting.figures import people_bars
from ecgclip_jax.reporting.html import render
from ecgclip_jax.spec.experiment import Source
from ecgclip_jax.spec.whole_file import whole_file
from ecgclip_jax.text.code_tables import VOCABULARIES, code_rows, keys_of
from ecgclip_jax.text.concepts import CONCEPTS

CARD_FILE = "card.html"
OVERLAP_FILE = "overlap.json"
MOST_LABELS = 80
"""Rows of the table; the rest is folded away."""
_MEASURES = {
    "missing_percent": "missing samples (%)",
    "lowest_uv": "lowest sample (µV)",
    "highest_uv": "highest sample (µV)",
    "qrs_peak_to_peak_uv": "QRS peak-to-peak, median of leads (µV)",
    "einthoven_residual_rms_uv": "I + III − II, root mean square (µV)",
}

Count = int | str
"""A number, or what stands for one that is too small to be told."""


def write_card(folder: Path) -> Path:
    """Writes `card.html`, and `overlap.json` with what other prepared cohorts share with this one; returns the page."""
    cohort = json.loads((folder / "cohort.json").read_text(encoding="utf-8"))
    audit = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    shared = [_disclosable(row, cohort["access"]) for row in shared_with_prepared(folder)]
    (folder / OVERLAP_FILE).write_text(json.dumps(shared, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sections = [
        _identity(cohort),
        _outcomes(audit),
        *_published(audit),
        _people(audit),
        _labels(cohort, audit),
        _signals(audit),
        _reports(audit),
        _copies(audit, shared),
        *_examples(folder, cohort, audit),
    ]
    title, banners = f"{cohort['name']} {cohort['version']}", _banners(cohort, audit, shared)
    page = render(title, _first_paragraph(cohort["description"]), banners, sections)
    path = folder / CARD_FILE
    with whole_file(path) as part:
        part.write_text(page, encoding="utf-8")
    return path


def _first_paragraph(markdown: str) -> str:
    """The first prose of a README, without its marks."""
    paragraphs = (paragraph.strip() for paragraph in markdown.split("\n\n"))
    prose = next((p for p in paragraphs if p and not p.startswith(("#", "|", "```"))), "")
    return " ".join(prose.replace("**", "").replace("`", "").split())


def _disclosable(row: SharedWith, access: str) -> dict[str, Any]:
    told = asdict(row)
    if access != "open":
        told |= {n: "<10" for n in ("waveforms", "records", "patients") if 0 < told[n] < 10}
    return told


def _number(count: Count) -> str:
    return f"{count:,}" if isinstance(count, int) else count


def _share(count: Count, of: Count) -> str:
    return f"{100 * count / of:.1f} %" if isinstance(count, int) and isinstance(of, int) and of else ""


def _words(name: str) -> str:
    return name.replace("_", " ")


def _banners(cohort: Mapping[str, Any], audit: Mapping[str, Any], shared: Sequence[Mapping[str, Any]]) -> list[str]:
    banners = []
    if cohort["label_vocabulary"].startswith("synthetic"):
        banners.append("Synthetic: this is no patient data.")
    if cohort["access"] != "open":
        banners.append(
            f"Access class {cohort['access']}: this card holds no waveform, report text or id, and no count under 10."
        )
    if different := [name for name, row in audit["published"].items() if row["published"] != row["found"]]:
        banners.append(f"Other counts than published: {', '.join(different)}.")
    if (across := audit["copies"]["waveforms_in_several_splits"]) != 0:
        banners.append(f"{_number(across)} waveforms stand in more than one split, under different record ids.")
    for row in shared:
        if row["records"]:
            banners.append(
                f"{_number(row['records'])} recordings are also in {row['cohort']} {row['version']}: what was "
                "trained on one must not be tested on the other."
            )
    return banners


def _identity(cohort: Mapping[str, Any]) -> Section:
    rule = cohort["split_rule"]
    scarce = ", ".join(rule.get("labels_not_everywhere", ()))
    options = ", ".join(f"{name} {value}" for name, value in cohort["options"].items()) or "none"
    facts = [
        ("licence", f"{cohort['licence']} (access: {cohort['access']})"),
        ("homepage", cohort["homepage"]),
        ("options", options),
        ("splits", " ".join(str(rule[k]) for k in ("kind", "note") if k in rule)),
        *([("labels too rare for every split", scarce)] if scarce else []),
        ("fingerprint of the records", cohort["fingerprint"]),
        ("schema", cohort["schema_version"]),
    ]
    lists = "\n".join(f"{sha256}  splits/{name}.txt" for name, sha256 in cohort["split_lists_sha256"].items())
    details = [("SHA-256 of the lists of record ids", lists), ("how to cite", cohort["citation"])]
    return Section("Cohort", facts=facts, details=details)


def _outcomes(audit: Mapping[str, Any]) -> Section:
    size = audit["size"]
    splits = [
        [split or "none could be told", *(_number(counts[outcome]) for outcome in ("kept", "flagged", "dropped"))]
        for split, counts in audit["splits"].items()
    ]
    reasons = [
        [_words(reason), outcome, _number(count)]
        for outcome, counts in audit["reasons"].items()
        for reason, count in sorted(counts.items(), key=lambda item: -item[1] if isinstance(item[1], int) else 0)
    ]
    return Section(
        "What became of every record",
        notes=["Flagged records are kept; nothing was repaired. Row by row: audit.parquet."],
        facts=[(_words(name), _number(count)) for name, count in {"source_rows": audit["source_rows"], **size}.items()],
        blocks=[
            TableContent(["split", "kept", "flagged", "dropped"], splits, numeric=(1, 2, 3)),
            TableContent(["reason", "outcome", "records"], reasons, title="Reasons", numeric=(2,)),
        ],
    )


def _published(audit: Mapping[str, Any]) -> list[Section]:
    rows = [
        [name, _number(row["published"]), _number(row["found"]), "" if row["published"] == row["found"] else "differs"]
        for name, row in audit["published"].items()
    ]
    if not rows:
        return []
    note = "Found: source rows for records, what was kept for everything else."
    return [
        Section(
            "Published counts",
            notes=[note],
            blocks=[TableContent(["count", "published", "found", ""], rows, numeric=(1, 2))],
        )
    ]


def _people(audit: Mapping[str, Any]) -> Section:
    bands = audit["people"]["age_by_sex"]
    quartiles = audit["people"]["age_years_quartiles"]
    facts = [("age, quartiles", ", ".join(f"{q:g}" for q in quartiles) + " years")] if quartiles else []
    rows = [[band, *(_number(n) for n in of_band.values())] for band, of_band in bands.items()]
    return Section(
        "People",
        notes=["One count per recording, not per patient."],
        facts=facts,
        blocks=[
            drawn(people_bars(bands), "Recordings by age and sex; counts that are not told are not drawn."),
            TableContent(["age (years)", "female", "male", "unknown"], rows, numeric=(1, 2, 3)),
        ],
    )


def _labels(cohort: Mapping[str, Any], audit: Mapping[str, Any]) -> Section:
    vocabulary, total = cohort["label_vocabulary"], audit["size"]["recordings"]
    rows = [
        [code, _asked(vocabulary, code), _number(count), _share(count, total)]
        for code, count in audit["labels"].items()
    ]
    rest = "\n".join(f"{row[0]}  {row[2]}" for row in rows[MOST_LABELS:])
    return Section(
        "Labels",
        facts=[("vocabulary", vocabulary), ("recordings without", _number(audit["recordings_without_label"]))],
        blocks=[TableContent(["code", "concept", "recordings", "share"], rows[:MOST_LABELS], numeric=(2, 3))],
        details=[(f"{len(rows) - MOST_LABELS} rarer codes", rest)] if rest else [],
    )


def _asked(vocabulary: str, code: str) -> str:
    """Names of the concepts that a code is mapped to; empty where no prompt asks for it."""
    if vocabulary not in VOCABULARIES:
        return ""
    rows = (code_rows(vocabulary).get(key) for key in keys_of(vocabulary, code))
    return ", ".join(CONCEPTS[k].name for k in dict.fromkeys(k for row in rows if row for k in row.concepts))


def _signals(audit: Mapping[str, Any]) -> Section:
    signal, ecgs = audit["signal"], audit["size"]["ecgs"]
    flags = [[_words(flag), _number(n), _share(n, ecgs)] for flag, n in audit["flags"].items()]
    heads = ["least", *(f"{100 * q:g} %" for q in signal["quantile_levels"][1:-1]), "most"]
    rows = [[_MEASURES[name], *(f"{q:,.4g}" for q in values)] for name, values in signal["quantiles"].items() if values]
    leads = ", ".join(f"{n} leads: {_number(count)}" for n, count in audit["leads_present"].items())
    rates = ", ".join(f"{rate} Hz: {_number(count)}" for rate, count in audit["source_rates_hz"].items())
    return Section(
        "Signals",
        facts=[("leads", leads), ("recorded at", rates)],
        blocks=[
            TableContent(["suspicion", "ECGs", "share"], flags or [["none", "", ""]], numeric=(1, 2)),
            TableContent(
                ["measure", *heads],
                rows,
                title=f"Measured on {signal['sampled']:,} ECGs drawn at random",
                numeric=tuple(range(1, len(heads) + 1)),
            ),
        ],
    )


def _reports(audit: Mapping[str, Any]) -> Section:
    reports = audit["reports"]
    languages = ", ".join(f"{language}: {_number(n)}" for language, n in reports["languages"].items())
    rows = [_leakage_row(told) for told in audit["leakage"]]
    note = (
        "What a text tower can read it can learn: if hospital, age or sex can be told from the cleaned reports, pairs "
        "can be matched without looking at the heart. A linear classifier on words, tested on patients it has not "
        "seen; AUROC 0.5 = nothing can be told."
    )
    columns = ["told from reports", "reports", "patients", "classes", "accuracy\n(majority)", "AUROC ± SD", "by words"]
    blocks = [TableContent(columns, rows, title="Leakage gauge", note=note, numeric=(1, 2, 4, 5))] if rows else []
    facts = [
        (_words(name), _number(reports[name])) for name in ("empty", "boilerplate_only", "distinct_after_cleaning")
    ]
    if languages and not rows:
        facts.append(("leakage gauge", "not taken: too few patients with a report for a classifier to be tested on"))
    return Section("Reports", facts=[*facts, ("languages", languages or "no report")], blocks=blocks)


def _leakage_row(told: Mapping[str, Any]) -> list[str]:
    numbers = [_number(told["n_reports"]), _number(told["n_patients"])]
    if told["too_few"]:
        return [told["target"], *numbers, told["too_few"], "", "", ""]
    accuracy = f"{told['accuracy']:.2f}\n({told['accuracy_majority']:.2f})"
    auroc = f"{told['auroc']:.2f} ± {told['auroc_sd']:.2f}"
    return [told["target"], *numbers, ", ".join(told["classes"]), accuracy, auroc, ", ".join(told["telling"])]


def _copies(audit: Mapping[str, Any], shared: Sequence[Mapping[str, Any]]) -> Section:
    facts = [(_words(name), _number(count)) for name, count in audit["copies"].items()]
    rows = [
        [
            f"{r['cohort']} {r['version']}",
            *(_number(r[k]) for k in ("waveforms", "records", "patients")),
            r["published"],
        ]
        for r in shared
    ]
    columns = ["prepared cohort", "waveforms", "recordings", "patients", "published: same recordings in"]
    blocks = (
        [TableContent(columns, rows, title="Shared with other prepared cohorts", numeric=(1, 2, 3))] if rows else []
    )
    return Section("Copies", notes=["Equal samples under several record ids."], facts=facts, blocks=blocks)


def _examples(folder: Path, cohort: Mapping[str, Any], audit: Mapping[str, Any]) -> list[Section]:
    """Of every suspicion the worst among some that have it."""
    figures: list[FigureContent] = []
    for example in audit["signal"]["examples"] if cohort["access"] == "open" else ():
        source = Source(cohort=cohort["name"], version=folder.name, split=example["split"])
        opened = open_cohort(folder.parent.parent, source)
        record = opened.table.slice(example["row"], 1).to_pylist()[0]
        page = draw_ecg_page(
            opened.read_ecg([example["row"]])[0],
            title=f"{cohort['name']} {example['record_id']}",
            lines=(example["message"],),
            quality_flags=record["quality_flags"],
            rate_hz_source=record["rate_hz_source"],
            band_hz=(record["band_low_hz"], record["band_high_hz"]),
        )
        where = f"{example['split']}, window {example['window_index']}"
        figures.append(pictured(page, f"{_words(example['flag'])}: {example['message']} ({where})", dpi=80))
    if not figures:
        return []
    return [Section("The worst", notes=["One stored ECG per suspicion, as it is."], blocks=figures)]
