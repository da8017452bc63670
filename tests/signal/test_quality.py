"""Each flag raised by what it means, and by nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from ecgclip_jax.signal.quality import QualityFlag, assess, find, qrs_peak_to_peak_uv
from ecgclip_jax.spec.signal import LEADS_12, MISSING_UV


def ecg(n_samples: int = 5000, amplitude_uv: float = 1000.0) -> np.ndarray:
    """Narrow spikes once per second on a moving dipole, so that the limb leads obey Einthoven and Goldberger."""
    t = np.arange(n_samples) / 500
    beat = np.exp(-((((t % 1.0) - 0.5) / 0.012) ** 2))
    recovery = np.exp(-((((t % 1.0) - 0.8) / 0.06) ** 2))
    rest = 20 * np.random.default_rng(2).normal(size=(8, n_samples))
    one, two, *chest = (
        amplitude_uv * (a * beat + b * recovery) + noise
        for a, b, noise in zip(
            (0.7, 1.1, -0.9, -0.6, 0.5, 1.4, 1.2, 0.8), (0.2, 0.3, -0.1, 0.3, 0.3, 0.3, 0.2, 0.2), rest, strict=True
        )
    )
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.asarray(np.rint(np.stack([*limb, *chest], axis=1)).astype(np.int16))


def test_a_clean_ecg_has_no_flag() -> None:
    assert assess(ecg()) == ()


def test_gaps_missing_leads_and_padding_are_three_things() -> None:
    recorded = ecg()
    recorded[10:20, 6] = MISSING_UV
    assert assess(recorded) == (QualityFlag.missing_samples,)
    recorded = ecg()
    recorded[:, 6] = MISSING_UV
    assert assess(recorded) == (QualityFlag.missing_lead,)
    recorded = ecg()
    recorded[4000:] = MISSING_UV
    assert assess(recorded, n_padded=1000) == (QualityFlag.padded_short,)
    assert assess(recorded) == (QualityFlag.missing_samples,)


def test_a_flat_lead_is_named() -> None:
    recorded = ecg()
    recorded[:, 8] = 3
    recorded[::7, 8] = 9
    (finding,) = find(recorded)
    assert finding.flag == QualityFlag.flat_lead
    assert "V3" in finding.message


def test_a_rail_is_saturation_but_a_peak_or_a_quiet_baseline_is_not() -> None:
    recorded = ecg()
    recorded[1000:1100, 9] = recorded[:, 9].max() + 900
    assert assess(recorded) == (QualityFlag.saturated,)
    recorded = ecg()
    recorded[:400, 9] = recorded[:, 9].min() - 1  # long at its extreme, but near zero
    assert assess(recorded) == ()
    recorded = ecg()
    recorded[70, 9] = 32767
    assert QualityFlag.saturated in assess(recorded)
    assert QualityFlag.saturated in assess(ecg(), n_saturated=1)


def test_a_held_end_is_no_rail_and_a_padded_one_is_frozen() -> None:
    recorded = ecg()
    recorded[-60:] = recorded[-60]  # as PTB-XL's records end
    recorded[-60:, 6:] += 2000  # with the chest leads far from the baseline
    assert assess(recorded) == ()
    recorded = ecg()
    recorded[:700] = 0  # as CODE-15 % pads with zeros
    (finding,) = find(recorded)
    assert (finding.flag, finding.value) == (QualityFlag.frozen, 699)
    recorded[:700] = MISSING_UV
    assert assess(recorded) == (QualityFlag.missing_samples,)


@pytest.mark.parametrize(
    ("factor", "said"),
    [(8.0, "5 times too large"), (25.0, "5 times too large"), (1 / 8, "0.2 times too small"), (1 / 40, "0.2 times")],
)
def test_a_wrong_unit_is_suspected_with_its_factor_and_left_alone(factor: float, said: str) -> None:
    recorded = np.rint(ecg().astype(float) * factor).astype(np.int16)
    before = recorded.copy()
    messages = {finding.flag: finding.message for finding in find(recorded)}
    assert said in messages[QualityFlag.amplitude_suspect_unit]
    assert "not rescaled" in messages[QualityFlag.amplitude_suspect_unit]
    np.testing.assert_array_equal(recorded, before)


def test_millivolts_taken_for_microvolts_leave_only_flat_leads() -> None:
    assert assess(np.rint(ecg() / 1000).astype(np.int16)) == (QualityFlag.flat_lead,)


def test_the_qrs_is_measured_despite_wander_and_gaps() -> None:
    recorded = ecg().astype(float)
    wander = 3000 * np.sin(2 * np.pi * 0.2 * np.arange(5000) / 500)[:, None]
    recorded[2100:2300] = MISSING_UV
    present = recorded != MISSING_UV
    by_lead = np.where(present, np.rint(recorded + wander), MISSING_UV).astype(np.int16).T
    measured = qrs_peak_to_peak_uv(np.ascontiguousarray(by_lead))
    clean = ecg()[200:300].max(axis=0) - ecg()[200:300].min(axis=0).astype(float)  # around the first beat, at 0.5 s
    np.testing.assert_allclose(measured, clean, atol=450)
    assert (measured > 300).all()


@pytest.mark.parametrize("n_samples", [0, 1, 24, 25, 49, 50, 99, 499, 700])
def test_any_length_can_be_assessed(n_samples: int) -> None:
    find(ecg(n_samples))
    find(np.full((n_samples, 12), MISSING_UV, np.int16))
    assess(ecg(5000), n_padded=5000 - n_samples)


EXCHANGES = [("aVL", "aVF"), ("aVR", "aVL"), ("I", "II"), ("II", "III"), ("I", "aVL")]


@pytest.mark.parametrize(("first", "second"), EXCHANGES)
def test_exchanged_limb_leads_are_named(first: str, second: str) -> None:
    recorded = ecg()
    columns = [LEADS_12.index(first), LEADS_12.index(second)]  # type: ignore[arg-type]
    recorded[:, columns] = recorded[:, columns[::-1]]
    messages = {finding.flag: finding.message for finding in find(recorded)}
    assert f"{first} and {second} exchanged" in messages[QualityFlag.lead_order_suspect]
    assert QualityFlag.goldberger_residual not in messages


def test_a_lead_upside_down_is_named() -> None:
    recorded = ecg()
    recorded[:, 3] *= -1
    (finding,) = find(recorded)
    assert finding.flag == QualityFlag.lead_order_suspect
    assert "aVR upside down" in finding.message


def test_a_disturbed_limb_lead_is_no_exchange() -> None:
    recorded = ecg().astype(float)
    disturbance = np.random.default_rng(4).normal(0, 200, 5000)
    recorded[:, 5] += disturbance
    (finding,) = find(np.rint(recorded).astype(np.int16))
    assert finding.flag == QualityFlag.goldberger_residual
    assert "aVF" in finding.message
    assert finding.value == pytest.approx(200, rel=0.1)
    recorded[:, 2] += disturbance
    assert assess(np.rint(recorded).astype(np.int16)) == (QualityFlag.einthoven_residual,)


def test_leads_scaled_one_by_one_are_recognised() -> None:
    """As LUDB's headers do it: every lead's gain makes its own range one millivolt."""
    recorded = ecg().astype(float)
    recorded *= 1000 / np.ptp(recorded, axis=0)
    messages = {finding.flag: finding.message for finding in find(np.rint(recorded).astype(np.int16))}
    assert "scaled one by one" in messages[QualityFlag.einthoven_residual]


def test_offsets_and_rounding_are_no_residual() -> None:
    recorded = ecg().astype(float) + np.arange(12) * 100
    assert assess((np.rint(recorded / 5) * 5).astype(np.int16)) == ()


def test_exchanged_chest_leads_or_arms_keep_the_algebra_and_are_not_claimed() -> None:
    recorded = ecg()
    recorded[:, [6, 7]] = recorded[:, [7, 6]]
    assert assess(recorded) == ()
    arms = recorded.copy()  # electrodes exchanged: I inverted, II and III, aVR and aVL exchanged
    arms[:, [0, 1, 2, 3, 4, 5]] = recorded[:, [0, 2, 1, 4, 3, 5]]
    arms[:, 0] *= -1
    assert assess(arms) == ()
