"""A suite's page from fabricated rows and predictions: nothing mixed, nothing missing unnamed, figures hold data."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgclip_jax.data.labels import Labels
from ecgclip_jax.evaluation.predictions import save_predictions
from ecgclip_jax.evaluation.results import Exclusion, ResultRow, Results, reasons
from ecgclip_jax.evaluation.scored import Arm, Scored, TestSplit
from ecgclip_jax.evaluation.suites.claims import Finding, Verdict
from ecgclip_jax.evaluation.suites.nulls import judge_nulls, save_null_verdicts
from ecgclip_jax.evaluation.suites.runner import SuiteOutcome
from ecgclip_jax.reporting.content import FigureContent, Section, TableContent
from ecgclip_jax.reporting.curve_bands import GRID, curve_bands
from ecgclip_jax.reporting.model_card import OPEN, card_sections
from ecgclip_jax.reporting.suite_axes import axis_sections
from ecgclip_jax.reporting.suite_claims import claims_section
from ecgclip_jax.reporting.suite_curves import _points, stored_tests
from ecgclip_jax.reporting.suite_figures import claim_forest, label_curves, setting_curves, task_forest
from ecgclip_jax.reporting.suite_nulls import null_section
from ecgclip_jax.reporting.suite_operating import operating_section
from ecgclip_jax.reporting.suite_page import write_suite_report
from ecgclip_jax.reporting.suite_rows import SuiteTable, headline, suite_table
from ecgclip_jax.reporting.suite_sections import outside_sections
from ecgclip_jax.reporting.suite_tables import excluded_section, heat_section, macro_section, not_run_section
from ecgclip_jax.reporting.suite_wording import wording_section
from ecgclip_jax.spec.experiment import Source
from ecgclip_jax.spec.suites import PRETRAINED, SCRATCH, ArmSpec, Claim, CohortSet, NullWorld, SuiteSpec, TestCohort

NAN = math.nan
HOSTILE = "<script>alert('ECG')</script>"
TASKS = {"atrial_fibrillation": "report", "pericarditis": "report", "aortic_stenosis": "independent"}
REAL, WORLD = "ptb_xl", "synthetic_hospitals"


def cohorts(name: str, *external: str) -> CohortSet:
    sources = (Source(cohort=name, split="train"),)
    tests = [TestCohort(name=t, sources=(Source(cohort=name, split=t),)) for t in ("inside", *external)]
    return CohortSet(name=name, train=sources, validation=sources, internal=tests[0], external=tuple(tests[1:]))


CLAIM = Claim(
    name="c", text=f"better {HOSTILE}", kind="superior", first=PRETRAINED, second=SCRATCH, first_fraction=0.1,
    second_fraction=0.1, metric="auroc", label_source="report", on="each", at_least=2,
)  # fmt: skip
SPEC = SuiteSpec(
    name="small", summary="a fake", cohorts=(cohorts(WORLD, "birch", "oak"), cohorts(REAL)), fractions=(0.1, 1.0),
    protocols=("zero_shot", "linear_probe", "fine_tune"), claims=(CLAIM,),
    arms=(ArmSpec(name="MERL R18", role="ladder", variant="v"), ArmSpec(name="absent", role="ladder", variant="w")),
    null_worlds=(
        NullWorld(name="A", cohorts=cohorts("null_a"), prediction="nothing is told", expected="vanishes"),
        NullWorld(
            name="B", cohorts=cohorts("null_b", "birch", "oak"), prediction="told inside", expected="breaks_outside",
            label="atrial_fibrillation", label_source="report", protocol="fine_tune", at_least=2,
        ),
        NullWorld(
            name="C", cohorts=cohorts(WORLD, "birch", "oak"), prediction="told by no words", expected="vanishes",
            protocol="zero_shot", model="shuffled", label_source="report",
        ),
    ),
)  # fmt: skip


def row(**facts: object) -> ResultRow:
    values = {
        "model": PRETRAINED, "compared_with": "", "protocol": "fine_tune", "label_fraction": 1.0, "n_repeats": 1,
        "cohort": WORLD, "version": "1", "split": "inside", "label": "macro", "label_group": "report",
        "label_source": "report", "metric": "auroc", "value": 0.8, "ci_low": 0.7, "ci_high": 0.9, "p_value": NAN,
        "chance": 0.5, "n": 200, "n_positives": None, "prevalence": 0.1, "n_patients": 150, "n_labels": 2,
        "discarded_draws": 0.0, "replicates": 10, "excluded": "", "excluded_labels": "", "note": "", "language": "",
        "bootstrap_seed": 0, "model_seed": None, "model_fingerprint": "m", "data_fingerprint": "d",
        "prompts_fingerprint": "", "evaluation_fingerprint": "e", "code_version": "0", "subgroup": "",
        "synthetic": True, "availability": "synthetic", "access": "open",
    }  # fmt: skip
    return ResultRow(**values | facts)


def rows() -> list[ResultRow]:
    """Macro means and tasks of two arms on three synthetic tests, of one on a real one, and a null world."""
    found = []
    gone = {"excluded_labels": reasons([("pericarditis", "few_test_positives")])}
    for place, value in (("inside", 0.8), ("birch", 0.7)):
        for metric in ("auroc", "average_precision", "average_precision_at_prevalence_0.05"):
            common = {"split": place, "metric": metric}
            macro = common | gone
            found += [row(**macro, value=value), row(**macro, model=SCRATCH, value=0.55, ci_low=0.5, ci_high=0.6)]
            found += [row(**macro, model=name, label_fraction=0.1, value=0.6) for name in (PRETRAINED, "MERL R18")]
            found.append(row(**macro, compared_with=SCRATCH, value=value - 0.55, ci_low=0.1, ci_high=0.3, chance=NAN))
            task = common | {"label": "atrial_fibrillation", "n_positives": 30, "n_labels": None}
            found += [row(**task, value=value), row(**task, model=SCRATCH, value=0.5)]
            found.append(row(**task, compared_with=SCRATCH, value=value - 0.5, ci_low=0.05, ci_high=0.3))
            found.append(row(**task | {"label": "aortic_stenosis", "label_group": "independent"}, value=0.66))
    found.append(row(label_group="independent", value=0.61))
    real = {"cohort": REAL, "synthetic": False, "availability": "real_here"}
    found += [row(**real, value=0.91), row(**real, label="atrial_fibrillation", value=0.93, n_positives=50)]
    found.append(row(**real, label="cardiac_amyloidosis", label_group="none", value=NAN, n=0, excluded="x"))
    return [*found, *(r for r in null_rows() if r.cohort == "null_b"), row(value=0.33, subgroup="sex female")]


def null_rows() -> list[ResultRow]:
    """A world that breaks at one of two other tests, and an arm whose words tell nothing."""
    task = {"cohort": "null_b", "label": "atrial_fibrillation", "n_labels": None, "n_positives": 30}
    words = {"protocol": "zero_shot", "model": "shuffled"}
    return [
        row(cohort="null_b", value=0.52),
        row(**task, value=0.9, ci_low=0.8, ci_high=0.95),
        row(**task, split="birch", value=0.6, ci_low=0.5, ci_high=0.7),
        row(**task, split="oak", value=0.7, ci_low=0.6, ci_high=0.76),
        row(**words, prompt_set="names", value=0.7, ci_low=0.68, ci_high=0.72),
        row(**words, prompt_set="sentences", value=0.52, ci_low=0.49, ci_high=0.54),
        row(**words, prompt_set="sentences", split="birch", value=0.52, ci_low=0.49, ci_high=0.56),
    ]


def save(folder: Path, found: Sequence[ResultRow]) -> Path:
    """`results.parquet`, whatever columns the table has by now."""
    Results(tuple(found)).save(folder, labels_in_json=False)
    return folder


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> SuiteTable:
    return suite_table(save(tmp_path_factory.mktemp("suite"), rows()), SPEC)


def blocks(section: Section) -> dict[str, TableContent]:
    return {b.title: b for b in section.blocks if isinstance(b, TableContent)}


def verdict(*holds: bool) -> Verdict:
    places = ("inside", "birch")
    return Verdict(
        CLAIM,
        "inside",
        tuple(
            Finding("c", place, 0.8, 0.6, 0.2, 0.1, 0.3, 0.001, 0.002 if own else 0.4, own, 12, 5, 150)
            for place, own in zip(places, holds, strict=True)
        ),
    )


def test_real_and_synthetic_are_counted_apart_and_null_worlds_make_no_stratum(table: SuiteTable) -> None:
    assert headline(table.rows).startswith("1 of 89 tasks were evaluated on real data, 2 on SYNTHETIC data")
    assert [tuple(s) for s in table.strata] == [
        (WORLD, "synthetic", "report"), (WORLD, "synthetic", "independent"), (REAL, "real_here", "report"),
    ]  # fmt: skip


def test_macro_tables_hold_one_source_and_never_raw_ap_side_by_side(table: SuiteTable) -> None:
    found = blocks(macro_section(table))
    assert len(found) == 9
    assert not [title for title in found if re.search(r": AP of every test", title)]
    inside = found[f"{WORLD}, report labels (SYNTHETIC): internal test"]
    lines = {line[0]: line for line in inside.rows if len(line) > 1}
    assert lines[f"{PRETRAINED} − {SCRATCH}"][1] == "+0.250\n(+0.100 to +0.300)"
    assert lines["chance"][1] == "0.500"
    every = found[f"{WORLD}, report labels (SYNTHETIC): AUROC of every test"]
    assert every.columns == ["model", "inside", "birch"]
    assert [PRETRAINED, "0.800\n0.70–0.90", "0.700\n0.70–0.90"] in every.rows
    assert not any("0.33" in cell for content in found.values() for line in content.rows for cell in line)


def test_the_headline_wording_alone_stands_in_tables_and_all_stand_side_by_side(tmp_path: Path) -> None:
    zero = {"protocol": "zero_shot", "split": "inside"}
    asked = [
        row(**zero, prompt_set="sentences", value=0.7, prompt_spread=0.12),
        row(**zero, prompt_set="class_names", value=0.62, ci_low=0.5),
        row(**zero, prompt_set="mine", value=0.58, n_labels=1),
        row(**zero, prompt_set="class_names", value=0.4, model=SCRATCH),
    ]
    worded = suite_table(save(tmp_path, [*rows(), *asked]), SPEC)
    assert set(worded.rows["prompt_set"]) == {"", "sentences"}
    (found,) = blocks(wording_section(worded)[0]).values()
    assert found.columns == ["prompts", "inside"]
    assert [line[0] for line in found.rows] == ["sentences", "class names", "mine", "spread"]
    assert found.rows[1][1] == "0.620\n0.50–0.90 (2)"
    assert found.rows[3][1] == "0.120"
    assert not wording_section(suite_table(save(tmp_path, rows()), SPEC))


def test_classes_of_label_sets_are_counted_apart_from_the_89(tmp_path: Path) -> None:
    own = [row(label=name, value=0.9, cohort=REAL, synthetic=False, label_group="report") for name in ("AFIB", "SR")]
    assert headline(suite_table(save(tmp_path, own), SPEC).rows) == (
        "2 classes of 1 published label set were evaluated."
    )
    assert headline(suite_table(save(tmp_path, [*rows(), *own]), SPEC).rows).startswith("2 classes of 1 published")


def test_heat_table_marks_what_is_sure(table: SuiteTable) -> None:
    heat = blocks(heat_section(table))[f"{WORLD}, report labels (SYNTHETIC)"]
    assert heat.rows == [["Atrial fibrillation", "30", "+0.30 ●"]]
    assert heat.shades == {(0, 2): 1.0}


def test_external_against_internal_leaves_raw_ap_out(table: SuiteTable) -> None:
    (section,) = outside_sections(table)
    drawing = section.blocks[0]
    assert "AUROC, internal" in drawing.svg
    assert "AP at 5 % prevalence, internal" in drawing.svg
    assert "AP, internal" not in drawing.svg


def test_every_task_that_is_not_scored_and_all_that_is_not_run_is_named(table: SuiteTable) -> None:
    gone = blocks(excluded_section(table))
    (line,) = gone[f"Left out of macro means: {WORLD}, report labels (SYNTHETIC)"].rows
    assert line == ["Pericarditis", "few test positives", "inside, birch", "fine tune (10 %, 100 %)"]
    assert gone["Unavailable in ptb_xl"].rows == [["Cardiac amyloidosis", "obtainable", "inside"]]
    section = not_run_section(table, ["no exposure table"])
    missing = {line[0]: line[1] for line in section.blocks[0].rows}
    assert set(missing) == {"oak", "null_a", "absent", "zero-shot", "linear probe"}
    assert section.notes == ["! no exposure table"]


def test_null_worlds_say_what_was_predicted_and_what_came_out(table: SuiteTable, tmp_path: Path) -> None:
    verdicts = judge_nulls(SPEC.null_worlds, null_rows(), "sentences")
    assert [v.holds for v in verdicts] == [False, True, True]
    assert [[f.holds for f in v.findings] for v in verdicts] == [[False], [True, True, False], [True, False, False]]
    (section,) = null_section(table, verdicts)
    assert [mark for mark, _ in section.facts] == [
        "– not run", "✓ as predicted (2 of 3 tests)", "✓ as predicted (1 of 3 tests)",
    ]  # fmt: skip
    found = blocks(section)
    assert ["birch", "0.600 (0.500–0.700)", "yes", "1"] in found["What was predicted and found"].rows
    assert {"null_b, report labels: macro AUROC", "null_b, AUROC of atrial fibrillation"} <= set(found)
    assert not any(title.startswith(WORLD) for title in found), "what stands in other sections is not repeated"
    stored = json.loads(save_null_verdicts(verdicts, tmp_path).read_text())
    assert [(w["name"], w["expected"], w["holds"]) for w in stored][1] == ("B", "breaks_outside", True)
    assert stored[0]["findings"][0]["value"] is None
    none = judge_nulls(SPEC.null_worlds[1:2], [r for r in null_rows() if r.split != "inside"], "sentences")
    assert none[0].n_holding == 0, "without a figure inside nothing breaks outside"


def test_operating_points_stand_per_model_and_per_task_of_the_run(tmp_path: Path) -> None:
    probe = {"protocol": "linear_probe", "value": 0.2, "ci_low": 0.1, "ci_high": 0.3}
    task = {"label": "atrial_fibrillation", "n_labels": None}
    found = [
        row(**probe, metric="ppv"),
        row(**probe | {"value": 80.44}, metric="alerts_per_1000"),
        row(**probe, metric="ppv", model="untrained seed 0"),
        row(**probe | task, metric="ppv"),
        row(**probe | task | {"value": -0.5}, metric="calibration_intercept"),
        row(**probe | task | {"label": "pericarditis", "value": NAN}, metric="ppv", excluded="few_test_positives"),
        row(**probe | {"split": "birch"}, metric="ppv"),
    ]
    (section,) = operating_section(suite_table(save(tmp_path, found), SPEC))
    means, tasks = section.blocks
    assert [line[0] for line in means.rows] == [f"{PRETRAINED}, linear probe", "untrained seed 0, linear probe"]
    assert means.rows[0][3:5] == ["0.200\n(0.100–0.300)", "80.4\n(0.1–0.3)"]
    assert [line[0] for line in tasks.rows] == ["Atrial fibrillation"]
    assert tasks.rows[0][3] == "0.200"
    assert tasks.rows[0][-1] == "−0.500"


def test_settings_stand_beside_the_ecgs_as_recorded_and_windows_by_themselves(tmp_path: Path) -> None:
    probe = {"protocol": "linear_probe", "ci_low": 0.5, "ci_high": 0.9}
    leads, window = {"axis": "leads", "setting": "1 lead"}, {"axis": "index_ecg", "setting": "1 day before the echo"}
    found = [
        row(**probe, value=0.81),
        row(**probe, value=0.62, **leads, n_labels=2),
        row(**probe, value=0.64, **leads, n_labels=1, split="birch"),
        row(**probe, value=0.71, **window, label_group="independent"),
        row(**probe, value=0.79, label_group="independent"),
    ]
    table = suite_table(save(tmp_path, found), SPEC)
    assert set(table.rows["value"]) == {0.81, 0.79}
    fewer, windows = axis_sections(table)
    curves, figures = fewer.blocks
    assert isinstance(curves, FigureContent)
    assert isinstance(figures, TableContent)
    assert figures.rows == [
        ["linear probe, 100 % of the labels"],
        ["as recorded", "2", "0.810\n0.50–0.90", "–"],
        ["1 lead", "1–2", "0.620\n0.50–0.90", "0.640\n0.50–0.90"],
    ]
    assert [line[0] for line in windows.blocks[1].rows][1:] == ["1 day before the echo"]


def test_curves_of_settings_hold_the_table_the_internal_test_with_its_band() -> None:
    data = [
        {"panel": "probe", "place": place, "setting": setting, "value": value, "ci_low": value - 0.1, "ci_high": 0.9}
        for setting, place, value in (
            ("as recorded", "out", 0.7),
            ("as recorded", "in", 0.8),
            ("1 lead", "in", 0.6),
        )
    ]
    (axis,) = setting_curves(pd.DataFrame(data), "in").axes
    inside, outside = axis.lines
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["as recorded", "1 lead"]
    assert inside.get_ydata().tolist() == [0.8, 0.6]
    assert outside.get_ydata().tolist()[0] == 0.7
    assert np.isnan(outside.get_ydata()[1])
    (band,) = axis.collections
    assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(0.5)


def test_verdicts_come_first_and_figures_hold_their_findings() -> None:
    section = claims_section([verdict(True, False)])
    assert section.facts == [("✗ does not hold (1 of 2 tests)", CLAIM.text)]
    assert claims_section([verdict(True, True)]).facts[0][0] == "✓ holds (2 of 2 tests)"
    facts = [("inside", 0.2, True), ("birch", -0.1, False)]
    data = [
        {"panel": "p", "row": r, "value": v, "ci_low": v - 0.1, "ci_high": v + 0.1, "holds": h} for r, v, h in facts
    ]
    axis = claim_forest(pd.DataFrame(data), {"p": -0.02}, "AUROC").axes[0]
    points = {line.get_label(): line.get_data()[0].tolist() for line in axis.lines if line.get_marker() == "o"}
    assert points == {"True": [0.2], "False": [-0.1]}
    assert [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == "--"] == [-0.02]


def test_forest_and_label_curves_hold_the_table() -> None:
    data = pd.DataFrame(
        [
            {"label": n, "place": p, "model": m, "value": v, "ci_low": v - 0.1 if m == "a" else NAN, "ci_high": v + 0.1}
            for n, p, m, v in (
                ("X", "in", "a", 0.6),
                ("Y", "in", "a", 0.8),
                ("X", "out", "a", 0.5),
                ("X", "in", "top", 0.9),
            )
        ]
    )
    inside, outside = task_forest(data, ["in", "out"], "AUROC", 0.5).axes
    assert [t.get_text() for t in inside.get_yticklabels()] == ["X", "Y"]
    assert np.nan_to_num(outside.lines[0].get_xdata(), nan=-1).tolist() == [0.5, -1]
    assert inside.lines[1].get_marker() == "|"
    curve = pd.DataFrame(
        [
            {"panel": "p", "line": n, "fraction": f, "value": v, "ci_low": v - 0.1, "ci_high": v + 0.1}
            for n, f, v in (("a", 1.0, 0.9), ("a", 0.1, 0.7), ("full", 1.0, 0.8))
        ]
    )
    (axis,) = label_curves(curve).axes
    assert [d.tolist() for d in axis.lines[0].get_data()] == [[0.1, 1.0], [0.7, 0.9]]
    assert axis.lines[1].get_linestyle() == ":"
    assert axis.lines[1].get_ydata()[0] == 0.8


def test_curves_are_those_of_scikit_learn_with_ties_and_weights() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(300) < 0.3
    score = np.round(truth + rng.normal(size=300), 1).astype(np.float32)
    weight = rng.uniform(0.5, 2, 300)
    found = curve_bands(truth, score, np.arange(300) // 2, 150, weight, replicates=50)
    area = roc_auc_score(truth, score, sample_weight=weight)
    assert np.trapezoid(found.roc.value, GRID) == pytest.approx(area, abs=2e-3)
    precise = average_precision_score(truth, score, sample_weight=weight)
    assert found.precision.value[1:].mean() == pytest.approx(precise, abs=0.01)
    assert (found.roc.low <= found.roc.high).all()
    assert np.trapezoid(found.roc.low, GRID) < area < np.trapezoid(found.roc.high, GRID)


def write_predictions(folder: Path) -> np.ndarray:
    """Tasks of the internal test; a tenth of the labels could not define the second."""
    rng = np.random.default_rng(1)
    n, names = 200, tuple(TASKS)
    labels = Labels(names, rng.random((n, 3)) < 0.3, rng.random((n, 3)) < 0.9)
    common = {k: getattr(row(), k) for k in ("cohort", "version", "split", "language", "prompts_fingerprint", "access")}
    test = TestSplit(labels, TASKS, np.arange(n) // 2, common, 5, 1, 20, 0, label_sources=TASKS)

    def fit(arm: str, protocol: str, fraction: float, repeat: int = 0) -> Scored:
        scores = rng.normal(size=(n, 3)) + labels.positive
        excluded = {"pericarditis": Exclusion.ONE_CLASS_IN_TRAINING} if fraction < 1 else {}
        return Scored(Arm(arm, "f"), protocol, scores.astype(np.float32), excluded, fraction=fraction, repeat=repeat)

    fits = [fit(arm, "fine_tune", f, k) for arm in (PRETRAINED, SCRATCH) for f in (0.1, 1.0) for k in (0, 1)]
    fits += [fit(PRETRAINED, "linear_probe", f) for f in (0.1, 1.0)]
    ids = pa.table({"record_id": [f"secret-{i}" for i in range(n)]})
    save_predictions(folder, f"{WORLD}-inside", ids, test, fits, identified=True)
    known = labels.known[:, 0]
    return np.mean([roc_auc_score(labels.positive[known, 0], s.scores[known, 0]) for s in fits[:2]])


def test_few_labels_average_the_same_tasks_at_every_fraction(tmp_path: Path) -> None:
    expected = write_predictions(tmp_path)
    (own,) = stored_tests(tmp_path, SPEC.cohorts[0]).values()
    points = pd.DataFrame(_points(own, "inside", True, "report"))
    assert set(points["panel"]) == {"inside, AUROC (1 tasks)", "inside, AP (1 tasks)"}
    chosen = points[(points["line"] == "pre-trained, fine-tuned") & (points["fraction"] == 0.1)]
    assert chosen[chosen["panel"].str.contains("AUROC")]["value"].iloc[0] == pytest.approx(expected, abs=1e-9)


def write_run(run: Path) -> Path:
    experiment = {
        "name": "e", "summary": HOSTILE, "seed": 0, "ecg_encoder": {"kind": "resnet1d", "depth": 18},
        "objective": {"kind": "infonce"}, "run": {"steps": 4}, "data": {"batch_global": 8},
        "optimizer": {"peak_lr": 1e-3},
        "signal": {"name": "s", "leads": ["I"], "rate_hz": 100.0, "samples": 10, "bandpass": None, "unit": "mV",
                   "normalisation": "none", "missing_leads": "derive"},
    }  # fmt: skip
    (run / "experiment.json").write_text(json.dumps({"experiment": experiment, "access": "open", "licences": ["x"]}))
    seen = {
        "cohort": ["c"] * 3,
        "version": ["1"] * 3,
        "split": ["train"] * 3,
        "patient_id": ["secret-p", "secret-p", "q"],
    }
    pq.write_table(pa.table(seen), run / "exposure.parquet")
    return run


def test_all_27_items_are_there_and_what_only_a_person_knows_is_open(tmp_path: Path, table: SuiteTable) -> None:
    card, tripod = card_sections(write_run(tmp_path), table, [verdict(True, True)])
    assert dict(card.facts)["trained on"] == "c 1/train: 3 ECGs of 2 patients"
    items = tripod.blocks[0].rows
    assert [line[0] for line in items] == [str(n) for n in range(1, 28)]
    assert all(line[2] for line in items)
    assert {line[1] for line in items if line[2] == OPEN} >= {"ethical approval", "interpretation"}


def test_the_page_is_one_offline_file_without_ids_and_with_every_section(tmp_path: Path) -> None:
    folder = save(write_run(tmp_path) / "evaluation" / "small", rows())
    write_predictions(folder)
    nulls = judge_nulls(SPEC.null_worlds, null_rows(), "sentences")
    outcome = SuiteOutcome(Results((), ("careful",), folder), (verdict(True, False),), tuple(nulls))
    page = write_suite_report(tmp_path, folder, SPEC, outcome, tmp_path)
    html = page.read_text(encoding="utf-8")
    assert page == folder / "report.html"
    assert "SYNTHETIC: null_b, synthetic_hospitals is no patient data." in html
    titles = re.findall(r"<h2[^>]*>([^<]*)", html)
    assert titles[0] == "Claims and verdicts"
    assert titles[-2:] == ["Model card", "TRIPOD+AI"]
    assert {"Few labels", "Calibration", "The attribution ladder", "Null worlds", "Subgroups", "Not run"} <= set(titles)
    assert "secret" not in html
    assert "<script" not in html
    assert "://" not in html
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)', html))
