"""The report page: figures hold the table's numbers, restricted data stays numbers, nothing hostile gets through."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from support.tiny_cohort import tiny_record, write_cohort

from ecgclip_jax.data.sources import open_cohort
from ecgclip_jax.evaluation.results import ResultRow, Results, suppress_small_cells
from ecgclip_jax.reporting import gallery, page
from ecgclip_jax.reporting.content import FigureContent, Section, TableContent, with_interval
from ecgclip_jax.reporting.figures import MODEL_COLOURS, as_svg, embedding_map, forest, roc_and_pr, training_curves
from ecgclip_jax.reporting.html import render
from ecgclip_jax.reporting.page import write_report
from ecgclip_jax.reporting.result_sections import result_sections

NAN = math.nan
HOSTILE = "<script>alert('ECG')</script>"


def row(**changes: object) -> ResultRow:
    """A level of the pre-trained model with plausible columns."""
    values = {
        "model": "pre-trained", "compared_with": "", "protocol": "zero_shot", "cohort": "hospital", "version": "1.0.0",
        "split": "test", "label": "atrial_fibrillation", "label_group": "seen", "label_source": "cohort labels",
        "metric": "auroc", "value": 0.83, "ci_low": 0.80, "ci_high": 0.86, "chance": 0.5, "n": 200, "n_positives": 40,
        "prevalence": 0.2, "n_patients": 150, "n_labels": None, "discarded_draws": 0.0, "replicates": 100,
        "excluded": "", "excluded_labels": "", "note": "", "language": "en", "bootstrap_seed": 0, "model_seed": None,
        "model_fingerprint": "m", "data_fingerprint": "d", "prompts_fingerprint": "p", "evaluation_fingerprint": "e",
        "code_version": "0", "synthetic": False, "access": "open", "label_fraction": 1.0, "n_repeats": 1,
        "p_value": NAN, "availability": "", "subgroup": "",
    }  # fmt: skip
    return ResultRow(**values | changes)


def macro(group: str, metric: str, value: float, n_labels: int, **changes: object) -> ResultRow:
    return row(
        **{
            "label": "macro", "label_group": group, "metric": metric, "value": value, "ci_low": value - 0.02,
            "ci_high": value + 0.02, "n_labels": n_labels, "n_positives": None,
            "chance": 0.5 if metric == "auroc" else 0.12,
        } | changes
    )  # fmt: skip


def rows(**changes: object) -> list[ResultRow]:
    """Two labels that can be scored and one that cannot, macro means, a baseline, a difference, retrieval."""
    undefined = {"value": NAN, "ci_low": NAN, "ci_high": NAN, "n_positives": 0, "excluded": "no_positive_in_test"}
    left_out = json.dumps({"long_qt": "no_positive_in_test"})
    found = [
        row(**changes),
        row(label="sinus_bradycardia", value=0.71, ci_low=0.6, ci_high=0.8, n_positives=25, **changes),
        row(**{"label": "long_qt", **undefined, **changes}),
        *(row(model="untrained seed 0", label=k, value=0.5, ci_low=0.4, ci_high=0.6, **changes)
          for k in ("atrial_fibrillation", "sinus_bradycardia")),
        *(macro(g, m, v, n, excluded_labels=left_out, **changes) for g, m, v, n in (
            ("seen", "auroc", 0.77, 2), ("unseen", "auroc", 0.61, 3), ("all", "auroc", 0.7, 5),
            ("seen", "average_precision", 0.44, 2), ("all", "average_precision", 0.4, 5))),
        macro("all", "auroc", 0.5, 5, model="untrained seed 0", **changes),
        macro("all", "auroc", -0.2, 5, compared_with="untrained seed 0", chance=NAN, **changes),
        *(row(protocol="retrieval", label="ecg_to_text", label_group="", metric=m, value=v, ci_low=v, ci_high=v,
              chance=c, n_positives=None, **changes)
          for m, v, c in (("recall@10", 0.25, 0.05), ("median_rank", 31.0, 100.0))),
    ]  # fmt: skip
    return [suppress_small_cells(r) for r in found]


def tables(section: Section) -> dict[str, TableContent]:
    return {b.title.split(" ")[0]: b for b in section.blocks if isinstance(b, TableContent)}


@pytest.fixture
def section(tmp_path: Path) -> Section:
    (found,) = result_sections(Results(tuple(rows())), tmp_path)
    return found


def test_macro_table_has_a_line_per_model_and_protocol(section: Section) -> None:
    table = tables(section)["Macro"]
    assert table.columns == ["model", "AUROC\nseen", "AUROC\nunseen", "AUROC\nall", "PRAUC\nseen", "PRAUC\nunseen",
                             "PRAUC\nall"]  # fmt: skip
    assert table.rows == [
        ["zero-shot (labels: 2 seen, 3 unseen, 5 all)"],
        ["pre-trained", "0.770\n(0.750–0.790)", "0.610\n(0.590–0.630)", "0.700\n(0.680–0.720)",
         "0.440\n(0.420–0.460)", "–", "0.400\n(0.380–0.420)"],
        ["untrained seed 0", "–", "–", "0.500\n(0.480–0.520)", "–", "–", "–"],
        ["chance", "0.500", "0.500", "0.500", "0.120", "–", "0.120"],
        ["pre-trained − untrained seed 0", "–", "–", "−0.200\n(−0.220 to −0.180)", "–", "–", "–"],
    ]  # fmt: skip


def test_retrieval_labels_and_what_was_left_out(section: Section) -> None:
    found = tables(section)
    assert found["Retrieval"].columns == ["model", "recall@10", "median rank"]
    assert found["Retrieval"].rows[0] == ["ECG → report (200 queries)"]
    assert found["Retrieval"].rows[1] == ["pre-trained", "0.250\n(0.250–0.250)", "31\n(31–31)"]
    assert found["Retrieval"].rows[2] == ["chance", "0.050", "100"]
    labels = {line[0]: line for line in found["Labels,"].rows}
    assert labels["Atrial fibrillation"][1:5] == ["seen", "40", "20.0 %", "0.830 (0.800–0.860)"]
    assert labels["Long QT"][4] == "no positive in test"
    assert found["Left"].rows == [["Long QT", "no positive in test", "zero-shot"]]


def test_figures_stand_between_the_summary_and_the_single_labels(section: Section) -> None:
    kinds = [type(block) for block in section.blocks]
    assert kinds == [TableContent, TableContent, FigureContent, TableContent, TableContent]
    assert section.notes == ["200 ECGs of 150 patients. Intervals: 95 %, patient bootstrap."]


def test_small_cells_stay_suppressed(tmp_path: Path) -> None:
    restricted = rows(access="credentialed")
    rare = suppress_small_cells(row(label="dextrocardia", n=9, n_positives=4, n_patients=8, access="credentialed"))
    (found,) = result_sections(Results((rare, *restricted)), tmp_path)
    assert found.notes[0].startswith("200 ECGs of 150 patients")
    line = next(line for line in tables(found)["Labels,"].rows if line[0] == "Dextrocardia")
    assert line[1:5] == ["seen", "suppressed", "–", "small cell suppressed"]


def test_forest_holds_the_intervals_of_the_table() -> None:
    table = pd.DataFrame(
        {
            "label": ["A", "B", "A", "B"],
            "model": ["x", "x", "y", "y"],
            "value": [0.9, 0.6, 0.5, 0.4],
            "ci_low": [0.8, 0.5, 0.4, 0.3],
            "ci_high": [1.0, 0.7, 0.6, 0.5],
            "n_positives": [12, 30, 12, 30],
        }
    )
    axis = forest(table, "AUROC", reference=0.5).axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["B  (n=30)", "A  (n=12)"]
    points = {line.get_label(): line.get_xdata().tolist() for line in axis.lines if line.get_marker() == "o"}
    assert points == {"x": [0.6, 0.9], "y": [0.4, 0.5]}
    spans = [[segment[:, 0].tolist() for segment in c.get_segments()] for c in axis.collections]
    assert spans == [[[0.5, 0.7], [0.8, 1.0]], [[0.3, 0.5], [0.4, 0.6]]]
    assert [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":"] == [0.5]


def test_forest_draws_every_model_however_many() -> None:
    names = [f"m{i}" for i in range(len(MODEL_COLOURS) + 2)]
    table = pd.DataFrame(
        [{"label": "A", "model": m, "value": 0.5, "ci_low": 0.4, "ci_high": 0.6, "n_positives": 3} for m in names]
    )
    assert [line.get_label() for line in forest(table, "AUROC").axes[0].lines] == names


def test_curves_enclose_the_areas_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(300) < 0.3
    score = truth + rng.normal(size=300)
    roc, precision = roc_and_pr({"A": (truth, score)}).axes
    x, y = roc.lines[0].get_data()
    assert np.trapezoid(y, x) == pytest.approx(roc_auc_score(truth, score))
    recall, found = precision.lines[0].get_data()
    assert -np.sum(np.diff(recall) * found[:-1]) == pytest.approx(average_precision_score(truth, score))
    assert precision.lines[1].get_ydata()[0] == truth.mean()
    assert found[-1] == found[-2]


def test_training_curves_and_map_hold_what_was_given() -> None:
    history = pd.DataFrame({"step": [1, 2, 3], "loss": [3.0, NAN, 1.0], "ecg_per_s": [NAN, NAN, NAN]})
    (axis,) = training_curves(history).axes
    assert [d.tolist() for d in axis.lines[0].get_data()] == [[1, 3], [3.0, 1.0]]
    points = np.arange(12.0).reshape(6, 2)
    (axis,) = embedding_map(points, [("by label", ["a", "b", "a", "c", "a", "b"])], most=2).axes
    assert [c.get_label() for c in axis.collections[1:]] == ["a (3)", "b (2)"]
    assert axis.collections[0].get_offsets().tolist() == [[6, 7]]
    assert axis.collections[1].get_offsets().tolist() == [[0, 1], [4, 5], [8, 9]]


def test_equal_input_gives_equal_svg() -> None:
    history = pd.DataFrame({"step": [1, 2], "loss": [3.0, 1.0]})
    first, again = (as_svg(training_curves(history)) for _ in range(2))
    assert first == again
    assert "://" not in first
    assert ">loss</text>" in first  # text stays text: it can be searched, and read aloud


def test_intervals_read_well() -> None:
    assert with_interval(0.5, 0.25, 0.75) == "0.500 (0.250–0.750)"
    assert with_interval(-0.1, -0.2, 0.05, form="+.2f") == "−0.10 (−0.20 to +0.05)"
    assert with_interval(0.5, NAN, NAN) == "0.500"
    assert with_interval(NAN, NAN, NAN) == "–"


def assert_self_contained(html: str) -> None:
    assert "://" not in html
    assert "<script" not in html
    assert "@import" not in html
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)', html))
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)', html))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)", html))


def test_hostile_text_is_escaped_everywhere(tmp_path: Path) -> None:
    hostile = [replace(r, model=r.model + HOSTILE) for r in [row(label=HOSTILE), *rows()]]
    hostile.append(macro("seen", "auroc", 0.6, 2, note=HOSTILE))
    (found,) = result_sections(Results(tuple(hostile)), tmp_path)
    blocks = [*found.blocks, FigureContent(HOSTILE, uri="data:image/png;base64,")]
    found = replace(found, facts=[(HOSTILE, HOSTILE)], blocks=blocks, details=[(HOSTILE, HOSTILE)])
    html = render(HOSTILE, HOSTILE, [HOSTILE], [found])
    assert html.count("&lt;script&gt;") > 10
    assert_self_contained(html)


CONCEPT = "atrial_fibrillation"
RECORD_IDS = [f"secret-{n}" for n in range(24)]


def write_run(workdir: Path, access: str) -> Results:
    """A run folder with everything kept, as `--with-patient-data` leaves it."""
    folder = workdir / "evaluation"
    (folder / "embeddings").mkdir(parents=True)
    seen = {"cohort": ["c"], "version": ["1"], "split": ["train"], "patient_id": ["secret-patient"]}
    pq.write_table(pa.table(seen), workdir / "exposure.parquet")
    (workdir / "experiment.json").write_text(json.dumps({"access": access, "licences": ["none"]}))
    (workdir / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    rng = np.random.default_rng(0)
    truth = np.arange(24) % 4 == 0
    scores = {f"score/pre-trained/zero_shot/{CONCEPT}": rng.random(24, np.float32)}
    columns = {"record_id": RECORD_IDS, "known": [True] * 24, f"label/{CONCEPT}": truth} | scores
    pq.write_table(pa.table(columns), folder / "predictions-hospital-1.0.0-test.parquet")
    np.savez(folder / "embeddings" / "ecg-pre-trained-hospital-1.0.0-test.npz", embedding=rng.normal(size=(24, 4)))
    return Results(tuple(rows(access=access)))


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes the page of a run of some access class; `opened` tells whether single records were looked at."""
    records = [tiny_record(n, record_id=name, label_codes=(CONCEPT,)) for n, name in enumerate(RECORD_IDS)]
    write_cohort(tmp_path, {"test": records}, name="hospital", access="open")
    opened: list[object] = []
    monkeypatch.setattr(page, "run_section", lambda workdir, model: Section("Run", [HOSTILE]))
    monkeypatch.setattr(gallery, "open_cohort", lambda *source: opened.append(source) or open_cohort(*source))
    monkeypatch.setattr(gallery, "umap_points", lambda embedding: np.asarray(embedding[:, :2], np.float32))
    experiment = SimpleNamespace(name="tiny", summary=HOSTILE, evaluation=SimpleNamespace(prompt_language="en"))

    def write(access: str) -> tuple[str, int]:
        results = write_run(tmp_path, access)
        path = write_report.__wrapped__(tmp_path, tmp_path, SimpleNamespace(experiment=experiment), results)
        return path.read_text(), len(opened)

    return write


def test_open_data_gets_a_map_and_pages(report) -> None:
    html, opened = report("open")
    assert opened == 1
    assert "Map of embeddings" in html
    assert html.count('<img src="data:image/png') == 2
    assert "highest similarity to Atrial fibrillation" in html
    assert_self_contained(html)


@pytest.mark.parametrize("access", ["registered", "credentialed", "private"])
def test_restricted_data_stays_numbers(report, access: str) -> None:
    html, opened = report(access)
    assert opened == 0
    assert "Map of embeddings" not in html
    assert "<img" not in html
    assert "secret" not in html
    assert "precision-recall" not in html  # six positives: below the smallest cell
    assert "Atrial fibrillation" in html
    assert_self_contained(html)
