"""Our label rules against published files: MERL's shipped splits, the official mapping tables, real records.

Not reproducible from what is at hand: which of 45,152 CSN records MERL kept (all headers are needed) and its CSN split
(rows were dropped after splitting); PTB-XL's labels of the records outside the 10,653 whose rows are here.
"""

from __future__ import annotations

import ast
import csv
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from sklearn.model_selection import train_test_split

from ecgclip_jax.signal.readers import read_ecg
from ecgclip_jax.text.code_tables import code_rows
from ecgclip_jax.text.concepts import CONCEPTS, codes_to_concepts
from ecgclip_jax.text.label_sets import LabelSet, first_acronyms, label_set
from ecgclip_jax.text.prompt_files import merl_repairs, read_prompt_file
from ecgclip_jax.text.shared_records import shared_records

# The PTB-XL rows at hand are older than 1.0.3, of which MERL's four sets hold all 21,799 records.
WITHDRAWN = {"137", "139", "140", "141", "142", "143", "145", "458", "3798", "3832", "5817", "7777"}
"""Ids of rows at hand that stand in none of MERL's sets: 1.0.3 dropped 38 records."""
CHANGED = {"3796", "3797", "3799", "7783", "9822", "13803"}
"""Ids whose rows at hand state more than MERL's files: 3799 IMI, 9822 1AVB and PVC, the rest all but the rhythm."""
SPLITS = ("train", "val", "test")
PTB_XL = {"super": "super_class", "sub": "sub_class", "form": "form", "rhythm": "rhythm"}


@cache
def rows_of(path: Path) -> tuple[dict[str, str], ...]:
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def merl(shared_data: Path, folder: str, stem: str) -> dict[str, tuple[dict[str, str], ...]]:
    root = shared_data / "metadata_only" / "merl" / "data_split" / folder
    return {split: rows_of(root / f"{stem}_{split}.csv") for split in SPLITS}


def marked(row: dict[str, str], classes: list[str]) -> set[str]:
    return {name for name in classes if row[name] == "1"}


def classes_of(labels: LabelSet) -> list[str]:
    return [c.name for c in labels.classes]


def found(labels: LabelSet, codes: list[str]) -> set[str] | None:
    result = labels.labels_of(codes)
    return {n for n, p in zip(classes_of(labels), result.positive, strict=True) if p} if result.belongs else None


# --- MERL's CSN -------------------------------------------------------------------------------------------------------


def csn_codes(diagnose: str) -> list[str]:
    """Back from MERL's acronyms to SNOMED codes: every acronym it kept is the first of its code."""
    code = {acronym: snomed for snomed, acronym in first_acronyms().items()}
    return [code[acronym] for acronym in diagnose.split(",")]


def test_csn_labels_of_merl_follow_from_its_rule(shared_data: Path) -> None:
    published, fixed = label_set("csn/merl-published"), label_set("csn/fixed")
    splits = merl(shared_data, "chapman", "chapman")
    assert [len(splits[s]) for s in SPLITS] == [16_546, 1_860, 4_620]
    classes = list(splits["train"][0])[3:]
    assert classes == classes_of(published)
    by_rule, exact, without = Counter[str](), Counter[str](), []
    for row in (row for rows in splits.values() for row in rows):
        codes = csn_codes(row["diagnose"])
        ours = found(published, codes)
        assert (ours or set()) == marked(row, classes), row["diagnose"]
        if ours is None:
            without.append(row["diagnose"])
        by_rule.update(ours or ())
        exact.update(found(fixed, codes) or ())
    assert without == ["SB,VPE"] * 2, "the two records without a class that MERL kept"
    differs = {name: (by_rule[name], exact[name]) for name in classes if by_rule[name] != exact[name]}
    assert differs == {
        "VB": (916, 3),
        "AVB": (913, 176),
        "CR": (216, 75),
        "2AVB": (38, 22),
        "AF": (4_753, 3_340),
        "SA": (2_828, 2_107),
        "ST": (6_338, 5_154),
    }


def test_no_record_in_merls_test_split_has_ventricular_bigeminy(shared_data: Path) -> None:
    test = merl(shared_data, "chapman", "chapman")["test"]
    assert sum(row["VB"] == "1" for row in test) > 100
    assert not any("VB" in row["diagnose"].split(",") for row in test)


# --- CPSC2018 ---------------------------------------------------------------------------------------------------------


def cpsc_records(shared_data: Path) -> dict[str, list[str]]:
    rows = rows_of(shared_data / "metadata_only" / "cpsc2018" / "REFERENCE_with_reports.csv")
    columns = ("First_label", "Second_label", "Third_label")
    return {row["Recording"]: [str(int(float(row[c]))) for c in columns if row[c]] for row in rows}


def test_cpsc_labels_of_merl_follow_from_the_reference(shared_data: Path) -> None:
    labels, records = label_set("cpsc2018"), cpsc_records(shared_data)
    splits = merl(shared_data, "icbeb", "icbeb")
    assert [len(splits[s]) for s in SPLITS] == [4_950, 551, 1_376]
    classes = list(splits["train"][0])[7:]
    assert classes == classes_of(labels)
    wrong = [
        row["filename"]
        for rows in splits.values()
        for row in rows
        if found(labels, records[row["filename"]]) != marked(row, classes)
    ]
    assert wrong == []


def test_cpsc_split_of_merl_follows_from_its_seed(shared_data: Path) -> None:
    splits = merl(shared_data, "icbeb", "icbeb")
    order = sorted((row for rows in splits.values() for row in rows), key=lambda row: int(row["ecg_id"]))
    rest, test = train_test_split(order, test_size=0.2, random_state=42)
    train, val = train_test_split(rest, test_size=0.1, random_state=42)
    for name, rows in zip(SPLITS, (train, val, test), strict=True):
        assert [r["filename"] for r in rows] == [r["filename"] for r in splits[name]]


def test_native_and_challenge_cpsc_count_alike(shared_data: Path) -> None:
    """Two independent sources: the native label file, and the Challenge's table of counts per database."""
    native, challenge = label_set("cpsc2018"), label_set("cpsc2018/challenge")
    counts = Counter(name for codes in cpsc_records(shared_data).values() for name in found(native, codes) or ())
    table = dx_counts(shared_data, "CPSC")
    assert {c.name: table[next(iter(c.codes))] for c in challenge.classes} == dict(counts)
    assert {code for code, n in table.items() if n} == {next(iter(c.codes)) for c in challenge.classes}


# --- PTB-XL -----------------------------------------------------------------------------------------------------------


@cache
def ptb_xl_codes(shared_data: Path) -> dict[str, dict[str, float]]:
    """Statements of every PTB-XL record whose metadata row is at hand."""
    files = [*sorted((shared_data / "metadata_only" / "ptbxl").glob("*.csv")), shared_data / "ptbxl/ptbxl_database.csv"]
    return {row["ecg_id"]: ast.literal_eval(row["scp_codes"]) for path in files for row in rows_of(path)}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("super", (17_084, 2_146, 2_158)),
        ("sub", (17_084, 2_146, 2_158)),
        ("form", (7_197, 901, 880)),
        ("rhythm", (16_832, 2_100, 2_098)),
    ],
)
def test_ptb_xl_labels_of_merl_follow_from_the_statements(shared_data: Path, name: str, sizes: tuple[int, ...]) -> None:
    labels, records = label_set(f"ptb_xl/{name}"), ptb_xl_codes(shared_data)
    splits = merl(shared_data, f"ptbxl/{PTB_XL[name]}", f"ptbxl_{PTB_XL[name]}")
    assert tuple(len(splits[s]) for s in SPLITS) == sizes
    folds = {split: {row["strat_fold"] for row in rows} for split, rows in splits.items()}
    assert folds == {"train": set("12345678"), "val": {"9"}, "test": {"10"}}
    classes = classes_of(labels)
    shipped = {row["ecg_id"]: row for rows in splits.values() for row in rows}
    assert all(set(classes) == set(list(row)[6:]) for row in shipped.values())
    assert list(splits["test"][0])[6:] == classes
    compared = [i for i in records if i in shipped]
    assert len(compared) > (8_900 if name == "form" else 10_000)
    wrong = {i for i in compared if found(labels, list(records[i])) != marked(shipped[i], classes)}
    assert wrong <= CHANGED
    kept_by_rule = {i for i in records if found(labels, list(records[i])) is not None}
    assert kept_by_rule - set(shipped) <= WITHDRAWN | CHANGED
    assert not WITHDRAWN & set(shipped)


def test_the_four_ptb_xl_sets_of_merl_hold_every_record_of_1_0_3(shared_data: Path) -> None:
    everywhere = {
        row["ecg_id"]
        for group in PTB_XL.values()
        for rows in merl(shared_data, f"ptbxl/{group}", f"ptbxl_{group}").values()
        for row in rows
    }
    assert len(everywhere) == 21_799
    assert set(ptb_xl_codes(shared_data)) - everywhere == WITHDRAWN


def test_form_counts_are_complete(shared_data: Path) -> None:
    """Every record with a form statement is at hand, so the whole set is reproduced, positives per class included."""
    labels, records = label_set("ptb_xl/form"), ptb_xl_codes(shared_data)
    splits = merl(shared_data, "ptbxl/form", "ptbxl_form")
    shipped = {row["ecg_id"] for rows in splits.values() for row in rows}
    assert shipped <= set(records)
    counts = Counter(name for i in shipped for name in found(labels, list(records[i])) or ())
    assert counts == Counter(n for rows in splits.values() for row in rows for n in marked(row, classes_of(labels)))


def test_merls_sub_class_files_differ_in_the_order_of_their_columns(shared_data: Path) -> None:
    splits = merl(shared_data, "ptbxl/sub_class", "ptbxl_sub_class")
    ours = classes_of(label_set("ptb_xl/sub"))
    assert list(splits["val"][0])[6:] == list(splits["test"][0])[6:] == ours
    train = list(splits["train"][0])[6:]
    assert [(i, a, b) for i, (a, b) in enumerate(zip(train, ours, strict=True)) if a != b] == [
        (10, "AVB", "ISC"),
        (11, "RAO/RAE", "AVB"),
        (12, "ISC", "RAO/RAE"),
    ]


def test_scp_classes_are_those_of_the_official_table(shared_data: Path) -> None:
    rows = rows_of(shared_data / "ptbxl" / "scp_statements.csv")
    for name, column in (("super", "diagnostic_class"), ("sub", "diagnostic_subclass")):
        official: dict[str, set[str]] = {}
        for row in rows:
            if row["diagnostic"]:
                official.setdefault(row[column].strip("_"), set()).add(row[""])
        assert {c.name: set(c.codes) for c in label_set(f"ptb_xl/{name}").classes} == official
    for name in ("form", "rhythm"):
        assert {code for c in label_set(f"ptb_xl/{name}").classes for code in c.codes} == {
            row[""] for row in rows if row[name]
        }
    assert [next(iter(c.codes)) for c in label_set("ptb_xl/all").classes] == [row[""] for row in rows]


# --- mapping tables ---------------------------------------------------------------------------------------------------


def dx_rows(shared_data: Path) -> list[dict[str, str]]:
    folder = shared_data / "challenge-2021" / "mapping"
    return [row for part in ("scored", "unscored") for row in rows_of(folder / f"dx_mapping_{part}.csv")]


def dx_counts(shared_data: Path, database: str) -> dict[str, int]:
    return {row["SNOMEDCTCode"]: int(row[database]) for row in dx_rows(shared_data)}


def test_every_code_of_the_challenge_is_in_the_table_with_its_text(shared_data: Path) -> None:
    table = code_rows("snomed")
    rows = dx_rows(shared_data)
    assert len(rows) == 133
    for row in rows:
        assert table[row["SNOMEDCTCode"]].text == " ".join(row["Dx"].split())


def test_challenge_classes_are_those_of_the_official_weights(shared_data: Path) -> None:
    folder = shared_data / "challenge-2021" / "mapping"
    header = (folder / "weights.csv").read_text("utf-8").splitlines()[0].split(",")[1:]
    names = (folder / "weights_abbreviations.csv").read_text("utf-8").splitlines()[0].split(",")[1:]
    classes = label_set("challenge2021").classes
    assert [set(c.codes) for c in classes] == [set(codes.split("|")) for codes in header]
    assert [c.name for c in classes] == names


def test_every_statement_of_sph_states_something_or_says_why_not(shared_data: Path) -> None:
    rows = rows_of(shared_data / "sph" / "metadata_with_intervals.csv")
    assert len(rows) == 25_770
    statements = Counter(code for row in rows for code in row["AHA_Code"].split(";"))
    silent = {code for code in statements if not codes_to_concepts("aha", [code])}
    assert silent == {"152"}  # TU fusion: no concept
    for row in rows_of(shared_data / "sph" / "code.csv"):
        if row["Category"] != "Modifier":
            assert code_rows("aha")[row["Code"]].text == row["Description"]


def test_aha_codes_of_ptb_xls_table_mean_what_its_scp_codes_mean(shared_data: Path) -> None:
    """PTB-XL's authors gave 31 statements an AHA code; where it is a primary statement both share a concept."""
    compared = 0
    for row in rows_of(shared_data / "ptbxl" / "scp_statements.csv"):
        aha = row["AHA code"].removesuffix(".0")
        if aha in code_rows("aha"):
            compared += 1
            scp, other = codes_to_concepts("scp", [row[""]]), codes_to_concepts("aha", [aha])
            assert scp & other, (row[""], aha)
            assert all(CONCEPTS[c].wide for c in other - scp), (row[""], aha, other - scp)
    assert compared >= 28


def test_records_in_two_cohorts_mean_the_same_in_both_vocabularies(shared_data: Path) -> None:
    """PTB-XL records in the Challenge sample: what SNOMED states, SCP states, but for what PTB-XL writes elsewhere."""
    translate = next(row for row in shared_records() if row.part == "training/ptb-xl").other_id
    records, compared = ptb_xl_codes(shared_data), 0
    axis = {"left_axis_deviation", "right_axis_deviation", "indeterminate_axis"}  # heart_axis, not a statement
    for header in sorted((shared_data / "challenge-2021/training/ptb-xl").rglob("*.hea")):
        ecg_id = translate(header.stem)
        if ecg_id not in records:
            continue
        line = next(ln for ln in header.read_text().splitlines() if ln.lstrip("# ").startswith("Dx"))
        codes = [code.strip() for code in line.split(":")[1].split(",")]
        snomed = codes_to_concepts("snomed", codes) - axis
        assert snomed <= codes_to_concepts("scp", records[ecg_id]), (header.stem, codes, records[ecg_id])
        compared += 1
    assert compared >= 3


def test_a_shared_record_is_the_same_recording(shared_data: Path) -> None:
    ours = read_ecg(shared_data / "ptbxl/records500/00000/00001_hr.hea")
    raw = scipy.io.loadmat(next((shared_data / "challenge-2021/training/ptb-xl").rglob("HR00001.mat")))["val"]
    np.testing.assert_allclose(np.asarray(ours.signal_uv).T, raw, atol=0.51)  # 1 µV per unit in both


def test_code15_columns_are_the_vocabulary(shared_data: Path) -> None:
    columns = set(rows_of(shared_data / "code15" / "labels" / "labels.csv")[0]) - {"idx", "is_male"}
    assert columns == set(code_rows("code15"))


def test_merls_prompts_ask_for_every_class_and_lose_their_defects_in_repair(shared_data: Path) -> None:
    file = shared_data / "metadata_only" / "merl" / "zeroshot" / "CKEPE_prompt.json"
    released, repaired = read_prompt_file(file)
    assert (released.name, repaired.name) == ("merl_as_released", "merl_repaired")
    for name in ("ptb_xl/super", "ptb_xl/sub", "ptb_xl/form", "ptb_xl/rhythm", "cpsc2018", "csn/fixed"):
        assert set(classes_of(label_set(name))) <= set(released.prompts)
    assert {n for n in released.prompts if released.prompts[n] != repaired.prompts[n]} == set(merl_repairs())
    (bigeminy,), (flutter,), (clockwise,) = (repaired.prompts[name] for name in ("BIGU", "AF", "CR"))
    assert bigeminy.startswith("bigeminal pattern (unknown origin), ")
    assert "let me know" not in bigeminy
    assert "fibrillation" not in flutter
    assert clockwise == "clockwise rotation."
    assert all(len(text) > 5 for (text,) in repaired.prompts.values())
