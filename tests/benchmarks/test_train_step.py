"""The four-arm benchmark without its arms: which figures it puts side by side, and what it says of what it left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks import train_step
from benchmarks.common import Report, Timing
from benchmarks.step_cases import CASES, Case
from benchmarks.train_step import Machine, Way, compare, headline

ON_GPU = Machine({"platform": "gpu", "kind": "NVIDIA H200"}, {"platform": "gpu", "kind": "NVIDIA H200"})


def test_a_framework_is_never_compared_with_an_algorithm() -> None:
    of = {key: Timing(key, (s, s), s, True, 0) for key, s in {"d": 1.0, "b": 2.0, "c": 3.0, "a": 12.0}.items()}
    found = headline(of)
    assert set(found) == {"d/b", "c/a"}
    assert found == {"d/b": "2.00", "c/a": "4.00"}
    disturbed = headline(of | {"b": Timing("b", (2.0,), 2.0, False, 0)})
    assert "disturbed" in str(disturbed["d/b"])
    assert set(headline({key: of[key] for key in "da"})) == set()


def test_a_peer_that_cannot_run_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_step, "machine", lambda: Machine(ON_GPU.ours, {"platform": "cpu", "version": "2.13"}))
    (report,), ran = _compared(monkeypatch, CASES[:1])
    assert ran == [("r18_12x5000", "dc")]
    assert [note for note in report.notes if "did not run: PyTorch 2.13 here is built without the accelerator" in note]


def test_with_little_time_left_c_and_a_go_first_and_then_whole_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_step, "machine", lambda: ON_GPU)
    reports, ran = _compared(monkeypatch, CASES[:3], took_s=100.0, minutes=170 / 60)
    assert ran == [("r18_12x5000", "dbca"), ("r34_12x5000", "db")]
    assert reports[-1].notes == (train_step.LEFT_OUT,)


def test_a_case_that_its_gate_refuses_is_not_timed_and_the_others_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def gate(case: Case, *_: object) -> dict[str, object]:
        if case is CASES[0]:
            raise train_step.GateError("tuned: loss is 1.0e-02 from ours (at most 1e-04)")
        return {}

    monkeypatch.setattr(train_step, "machine", lambda: ON_GPU)
    reports, ran = _compared(monkeypatch, CASES[:2], gate=gate)
    assert [name for name, _ in ran] == ["r34_12x5000"]
    assert [report.refused for report in reports] == [True, False]
    assert reports[0].notes == (f"{train_step.REFUSED}: tuned: loss is 1.0e-02 from ours (at most 1e-04)",)


def _compared(
    monkeypatch: pytest.MonkeyPatch,
    cases: tuple[Case, ...],
    *,
    took_s: float = 0.0,
    minutes: float = 1.0,
    gate: Callable[..., dict[str, object]] = lambda *_: {},
) -> tuple[list[Report], list[tuple[str, str]]]:
    """Reports of a comparison whose gate passes, unless another is given, and whose arms are only listed, by case."""
    ran: list[tuple[str, str]] = []
    now_s = 0.0

    def timing(case: Case, ways: Mapping[str, Way], here: Machine, scratch: Path, **_: Any) -> Report:
        nonlocal now_s
        now_s += took_s
        ran.append((case.name, "".join(ways)))
        return Report(case.name, "ECG", ())

    monkeypatch.setattr(train_step, "gate", gate)
    monkeypatch.setattr(train_step, "timing", timing)
    monkeypatch.setattr(train_step.time, "monotonic", lambda: now_s)
    return compare(cases, quick=True, minutes=minutes), ran
