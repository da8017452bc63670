"""The benchmarks' helper: turns, the guard against a busy machine, and what is written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.common import Arm, Report, Timing, measure, publish, show, write_json


def busy_machine(monkeypatch: pytest.MonkeyPatch, per_reading_s: Iterator[float]) -> None:
    """Makes the machine's clock of busy seconds advance by what others are said to have used."""
    readings = iter(per_reading_s)
    total = 0.0

    def reading() -> float:
        nonlocal total
        total += next(readings)
        return total

    monkeypatch.setattr(common, "_own_cpu_s", lambda: 0.0)
    monkeypatch.setattr(common, "_machine_busy_s", reading)


def test_arms_take_turns_in_alternating_order(monkeypatch: pytest.MonkeyPatch) -> None:
    busy_machine(monkeypatch, (0.0 for _ in count()))
    order: list[str] = []
    arms = [Arm("a", lambda: order.append("a"), 10), Arm("b", lambda: order.append("b"))]
    first, second = measure(arms, quick=True, rounds=4, sample_s=0.0)
    assert "".join(order) == "aabb" + "ab" + "ba" + "ab" + "ba"  # each arm runs twice to be calibrated
    assert (len(first.seconds_per_item), first.clean, first.n_discarded) == (4, True, 0)
    assert second.name == "b"


def test_disturbed_samples_are_discarded_measured_again_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two readings per sample; others use ten seconds in the first sample and in none after it.
    busy_machine(monkeypatch, (10.0 if reading == 1 else 0.0 for reading in count()))
    (timing,) = measure([Arm("a", lambda: None)], quick=True, rounds=3, sample_s=0.0)
    assert (len(timing.seconds_per_item), timing.clean, timing.n_discarded) == (3, True, 1)


def test_without_a_clean_sample_the_figures_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    busy_machine(monkeypatch, (10.0 for _ in count()))
    (timing,) = measure([Arm("a", lambda: None)], quick=True, rounds=2, sample_s=0.0)
    assert (len(timing.seconds_per_item), timing.clean, timing.n_discarded) == (2 * common.ATTEMPTS, False, 0)


def test_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    timings = (Timing("ours", (0.1, 0.2, 0.3), 0.1, True, 1), Timing("peer", (2.0, 4.0), 0.1, False, 0))
    report = Report("reader", "record", timings, ("a note",), {"records": 3})
    assert report.ratios() == {"peer": 15.0}
    show([report])
    printed = capsys.readouterr().out
    assert "disturbed" in printed
    assert "a note" in printed
    write_json(tmp_path / "new" / "out.json", [report])
    written = json.loads((tmp_path / "new" / "out.json").read_text())
    assert written["reports"][0]["times_the_first"] == {"peer": 15.0}
    assert written["reports"][0]["median_s"] == {"ours": 0.2, "peer": 3.0}
    assert written["environment"]["cores"] >= 1


def test_a_refused_benchmark_fails_the_command_after_the_others_were_written(tmp_path: Path) -> None:
    reports = [Report("one", "ECG", (), ("forms differ",), refused=True), Report("two", "ECG", ())]
    with pytest.raises(SystemExit, match="1"):
        publish(reports, tmp_path / "out.json")
    assert [report["name"] for report in json.loads((tmp_path / "out.json").read_text())["reports"]] == ["one", "two"]
    publish(reports[1:], None)
