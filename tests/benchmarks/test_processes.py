"""Arms in processes of their own: what comes back, and what is said when something goes wrong there."""

from __future__ import annotations

import os

import pytest

from benchmarks.processes import ArmError, ArmProcess, OutOfMemory


def test_an_object_lives_in_its_process_with_the_environment_it_was_given() -> None:
    with ArmProcess("collections", "Counter", {"ARM_TEST": "there"}) as arm:
        assert arm.make("abba") == {"a": 2, "b": 2}
        arm.call("update", "aa", c=5)
        assert arm.call("most_common", 2) == [("c", 5), ("a", 4)]
        with pytest.raises(ArmError, match="AttributeError: 'Counter' object has no attribute 'nothing'"):
            arm.call("nothing")
        assert arm.call("total") == 11, "an error does not end the process"
    assert "ARM_TEST" not in os.environ


def test_too_little_memory_and_a_death_are_told_apart() -> None:
    with ArmProcess("builtins", "bytearray") as arm, pytest.raises(OutOfMemory):
        arm.make(2**62)
    with ArmProcess("os", "_exit") as arm, pytest.raises(ArmError, match="exit code 3"):
        arm.make(3)
