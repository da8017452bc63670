"""The commands as a person uses them: a tiny run from end to end, and one sentence for every mistake."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console
from support.tiny_cohort import write_cohort
from support.tiny_evaluation import STEPS, TinyRun, labelled_record, trained_run, write_experiment

from ecgclip_jax.cli import doctor
from ecgclip_jax.cli.main import COMMANDS, main
from ecgclip_jax.evaluation.results import load_results
from ecgclip_jax.evaluation.summary import summary_table

DEMO = str(Path(__file__).parents[2] / "experiments" / "demo.py")


@pytest.fixture(scope="module")
def run() -> TinyRun:
    return trained_run()


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]):
    """What the command says when it refuses: exit code 2, one line, no traceback."""

    def refused(*words: object) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == 2
        said = capsys.readouterr().err.strip()
        assert "\n" not in said
        assert "Traceback" not in said
        assert said.startswith(f"ecgclip {words[0]}: ")
        return said.removeprefix(f"ecgclip {words[0]}: ")

    return refused


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["help"]):
        assert main(words) == 0
        said = capsys.readouterr().out
        assert all(command in said for command in COMMANDS)
    assert main(["--version"]) == 0


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        with pytest.raises(SystemExit) as left:
            main([command, "--help"])
        assert left.value.code == 0
        assert f"ecgclip {command}" in capsys.readouterr().out


def test_an_unknown_command_is_answered_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["[red]trian"]) == 2
    said = capsys.readouterr().err
    assert "no command '[red]trian'; it has: demo, prepare, train" in said


def test_doctor_without_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGCLIP_CACHE", str(tmp_path))
    (tmp_path / "filters").write_bytes(bytes(2 << 20))
    assert main(["doctor", "--data-dir", str(tmp_path / "none")]) == 0
    said = capsys.readouterr().out
    assert f"programs are kept in {tmp_path} (2 MiB, $ECGCLIP_CACHE)" in said
    assert "orbax-checkpoint" in said
    assert "device 7" in said
    assert "no prepared cohorts" in said
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("ECGCLIP_CACHE", "")
    assert main(["doctor", "--data-dir", str(tmp_path / "empty")]) == 0
    said = capsys.readouterr().out
    assert "no prepared cohorts in" in said
    assert "made in every process: $ECGCLIP_CACHE is empty" in said


def test_doctor_lists_cohorts_and_what_is_missing(
    run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run.data_dir, tmp_path / "data")
    broken = tmp_path / "data" / "broken" / "1.0.0"
    broken.mkdir(parents=True)
    (broken / "cohort.json").write_text("[")
    monkeypatch.setattr(doctor, "PACKAGES", (*doctor.PACKAGES, "no-such-package"))
    assert main(["doctor", "--data-dir", str(tmp_path / "data")]) == 1
    said = capsys.readouterr().out
    assert "tiny" in said
    assert "unreadable" in said
    assert "missing no-such-package: run" in said


def test_show_prints_the_resolved_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["show", DEMO, "--variant", "smoke", "--optimizer.peak-lr", "3e-4", "--signal.leads", "I", "V2"]
    assert main(words) == 0
    said = capsys.readouterr().out
    shown = json.loads(said[: said.rindex("}") + 1])
    assert shown["optimizer"]["peak_lr"] == 3e-4
    assert shown["signal"]["leads"] == ["I", "V2"]
    assert shown["run"]["steps"] == 6
    assert "variants    base, shuffled_reports, sigmoid, smoke" in said
    with pytest.raises(SystemExit) as left:
        main(["show", DEMO, "--overrides-help"])
    assert not left.value.code
    assert "--optimizer.peak-lr FLOAT" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--run.stepz", "3"], "Unrecognized options: --run.stepz"),
        (["--run.steps", "3"], "must be below run.steps 3"),
        (["--run.steps", "0"], "run.steps: input should be greater than or equal to 1, found 0"),
        (["--run.steps", "many"], "--run.steps: invalid literal for int() with base 10: 'many'; expected --run.steps"),
        (["--signal.leads", "II", "V7"], "invalid choice 'V7' for argument '--signal.leads'. Expected one of ('I',"),
        (["--signal.bandpass.low-hz", "90"], "bandpass: low_hz 90.0 must be below high_hz 40.0"),
        (["--ecg-encoder.width", "-1"], "ecg_encoder.width: input should be greater than or equal to 4, found -1"),
        (["--variant", "large"], "has no variant 'large'; it has: base, shuffled_reports, sigmoid, smoke"),
    ],
)  # fmt: skip
def test_wrong_overrides_are_one_sentence(refusal, words: list[str], says: str) -> None:
    said = refusal("show", DEMO, *words)
    assert says in said
    assert not set("─│╭╰") & set(said)
    assert "---" not in said


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("def variants(:", "cannot be run: SyntaxError"),
        ("import nowhere_to_be_found", "cannot be run: ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("x = 1", "defines no variants()"),
        ("def variants():\n    return []", "must return a dictionary"),
        (
            "from ecgclip_jax.spec.experiment import RunSpec\ndef variants():\n    return {'a': RunSpec(steps=0)}",
            "steps: input should be greater than or equal to 1, found 0",
        ),
    ],
)
def test_a_broken_experiment_file_is_one_sentence(refusal, tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    said = refusal("show", path)
    assert str(path) in said
    assert says in said


def test_a_finished_run_says_where_it_lies(run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", run.experiment_file, "--workdir", run.folder, "--data-dir", run.data_dir]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert f"run folder: {run.folder}" in said
    assert f"next: ecgclip evaluate {run.folder}" in said
    assert json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])["step"] == STEPS


@pytest.fixture(scope="module")
def said_by_evaluate(run: TinyRun) -> str:
    """What `ecgclip evaluate` prints where no terminal is."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["evaluate", str(run.folder), "--data-dir", str(run.data_dir), "--replicates", "10"]) == 0
    return printed.getvalue()


def test_evaluate_prints_a_table_and_writes_a_report(run: TinyRun, said_by_evaluate: str) -> None:
    said = said_by_evaluate
    assert "zero-shot AUROC" in said
    assert "text→ECG" in said  # the rightmost column: nothing is cut where no terminal is
    assert "…" not in said
    assert f"report  {run.folder / 'report.html'}" in said
    results = load_results(run.folder / "evaluation")
    assert {r.model for r in results.rows} == {"pre-trained", "untrained seed 0", "trivial features"}
    assert {r.replicates for r in results.rows} == {10}
    html = (run.folder / "report.html").read_text()
    assert "Synthetic results" in html
    assert "tiny 1.0.0, test" in html
    assert "resnet1d-10" in html
    assert "://" not in html


def test_the_table_fits_a_narrow_terminal(run: TinyRun, said_by_evaluate: str) -> None:
    shown = io.StringIO()
    narrow = Console(file=shown, width=60, force_terminal=True, color_system=None)
    narrow.print(summary_table(load_results(run.folder / "evaluation")))
    table = [line for line in shown.getvalue().splitlines() if line.startswith(tuple("┏┃┡│├└"))]
    assert table
    assert max(map(len, table)) <= 60
    assert "…" not in "".join(table)
    assert "text→ECG" in "".join(table)


def test_what_is_missing_is_named(run: TinyRun, refusal, tmp_path: Path) -> None:
    train = ("train", run.experiment_file, "--workdir", tmp_path / "new", "--data-dir")
    assert "no prepared cohort 'tiny' in" in refusal(*train, tmp_path)
    write_cohort(tmp_path, {"test": [labelled_record(n) for n in range(4)]})
    assert "tiny 1.0.0 has no split 'train'; it has test" in refusal(*train, tmp_path)
    evaluate = ("evaluate", run.folder, "--data-dir", run.data_dir)
    assert "tiny 1.0.0 has no split 'external'" in refusal(*evaluate, "--test", "tiny/external")
    assert "no prepared cohort 'ptb_xl'" in refusal(*evaluate, "--test", "ptb_xl/test")
    assert "--test takes COHORT/SPLIT" in refusal(*evaluate, "--test", "tiny")
    assert "evaluation.bootstrap_replicates: input should be greater" in refusal(*evaluate, "--replicates", "0")
    assert "no checkpoint of step 3" in refusal(*evaluate, "--step", "3")
    assert "is no run folder" in refusal("evaluate", tmp_path)


def test_a_run_that_does_not_fit_is_refused(run: TinyRun, refusal, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.folder, tmp_path / "run"))
    again = ("train", run.experiment_file, "--workdir", copy, "--data-dir", run.data_dir)
    assert "another experiment: ecg_encoder.width is 4 there and 8 here" in refusal(*again, "--ecg-encoder.width", "8")
    facts = json.loads((copy / "experiment.json").read_text())
    facts["experiment"]["ecg_encoder"]["width"] = 8
    (copy / "experiment.json").write_text(json.dumps(facts))
    assert "ecg_encoder.width is 4 there and 8 here" in refusal("evaluate", copy, "--data-dir", run.data_dir)


def test_a_damaged_checkpoint_is_refused(run: TinyRun, refusal, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run.folder, tmp_path / "run"))
    for path in (copy / "checkpoints" / str(STEPS)).rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            path.write_bytes(path.read_bytes()[:-8])
    assert "is damaged" in refusal("evaluate", copy, "--data-dir", run.data_dir)


def test_a_wrong_option_ends_with_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "somewhere", "--replicants", "3"])
    assert left.value.code == 2
    assert "--replicants" in capsys.readouterr().err


def test_debugging_keeps_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGCLIP_DEBUG", "1")
    with pytest.raises(ValueError, match="is no run folder"):
        main(["evaluate", str(tmp_path)])


def test_contact_sheet_as_pictures_and_as_a_document(tmp_path: Path, refusal) -> None:
    chosen = ["--only", "atrial_fibrillation", "sinus_rhythm"]
    assert main(["contact-sheet", "--out", str(tmp_path / "pages"), "--dpi", "40", *chosen]) == 0
    pictures = sorted((tmp_path / "pages").iterdir())
    assert [p.name for p in pictures] == ["atrial_fibrillation.png", "sinus_rhythm.png"]
    assert all(Image.open(p).size[0] > 300 for p in pictures)
    document = tmp_path / "new" / "sheet.pdf"
    assert main(["contact-sheet", "--out", str(document), *chosen[:2]]) == 0
    assert document.read_bytes().startswith(b"%PDF")
    assert "no synthetic diagnosis flu; there are:" in refusal("contact-sheet", "--only", "flu")


def test_the_experiment_file_of_these_tests_is_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(write_experiment(tmp_path / "tiny.py"))]) == 0
    assert '"name": "tiny"' in capsys.readouterr().out
