"""The record as read and the error with its reason."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from ecgclip_jax.signal.record import ECGReadError, ECGRecord, ReasonCode, SourceFacts


def test_an_error_says_expected_found_and_what_to_do_and_crosses_processes() -> None:
    error = ECGReadError.because(ReasonCode.truncated, "a.dat", expected="10 bytes", found="9", remedy="Get it again.")
    assert str(error) == "a.dat: expected 10 bytes, found 9. Get it again. [truncated]"
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ECGReadError)
    assert (again.reason, str(again)) == (ReasonCode.truncated, str(error))


def test_a_record_knows_its_length_and_its_other_leads() -> None:
    facts = SourceFacts(format="test", resolution_uv=1.0)
    record = ECGRecord("r", np.zeros((750, 3), np.float32), ("II", "vx", "V1"), 250.0, facts)
    assert record.duration_s == 3.0
    assert record.extra_leads == ("vx",)
    with pytest.raises(ValueError, match="2 lead names for 3 signal columns"):
        ECGRecord("r", np.zeros((750, 3), np.float32), ("II", "V1"), 250.0, facts)
