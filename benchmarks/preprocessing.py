"""A model's input: the jitted `preprocess` against the scipy chain of the released code, record by record.

ECGCLIP's input (8 leads, 0.5-100 Hz with Gustafsson's ends, mains notch with harmonics, 500 → 400 Hz, 4096 samples) is
the comparison; the demo's lighter input (0.5-40 Hz, 100 Hz, 1024 samples) is in the facts. Records of 50 and 60 Hz
mains are mixed, a dear case for ours. Both are compared before anything is timed. Ours uses all cores, scipy mostly
one: the column of processor time is the fair one per core.
"""

from __future__ import annotations

import time
from typing import Final

import jax
import jax.numpy as jnp
import numpy as np
from scipy import signal as scipy_signal

from benchmarks.common import Arm, Report, Timing, main, measure
from ecgclip_jax.signal.preprocessing import build_operators, preprocess
from ecgclip_jax.spec.signal import LEADS_8, LEADS_12, Bandpass, MainsNotch, SignalSpec, ecgclip

DEMO: Final = SignalSpec(
    name="demo_100hz",
    rate_hz=100,
    samples=1024,
    leads=LEADS_8,
    bandpass=Bandpass(order=3, low_hz=0.5, high_hz=40.0),
    notch=MainsNotch(),
)
BATCH: Final = 128
_SCIPY_RECORDS: Final = 8
_TOLERANCE_MV: Final = 1e-3


def make_ecgs(n: int) -> np.ndarray:
    """int16 windows [n, 5000, 12] with the spectrum of an ECG, roughly: drift, spikes and noise."""
    random = np.random.default_rng(0)
    noise_uv = scipy_signal.lfilter([1], [1, -0.97], random.normal(0, 20, (n, 5000, 12)), axis=1)
    noise_uv[:, ::400] += random.normal(0, 1500, (n, 13, 12))
    return np.clip(noise_uv, -32767, 32767).astype(np.int16)


def scipy_chain(spec: SignalSpec, ecg_uv: np.ndarray, mains_hz: float) -> np.ndarray:
    """One record by scipy in float64, centre-padded: [samples, lead] in mV."""
    assert spec.bandpass
    assert spec.notch
    signal = ecg_uv[:, [LEADS_12.index(lead) for lead in spec.leads]] / 1000
    band = (spec.bandpass.low_hz, spec.bandpass.high_hz)
    b, a = scipy_signal.butter(spec.bandpass.order, band, btype="bandpass", fs=500)
    ends = {"method": "gust"} if spec.bandpass.padding == "gust" else {}
    signal = scipy_signal.filtfilt(b, a, signal, axis=0, **ends)
    for harmonic in range(1, int(250 // mains_hz) + 1):
        b, a = scipy_signal.iirnotch(harmonic * mains_hz, spec.notch.q, fs=500)
        signal = scipy_signal.filtfilt(b, a, signal, axis=0, padtype="constant")
    signal = scipy_signal.resample_poly(signal, spec.signal_samples, 5000, axis=0)
    before = (spec.samples - len(signal)) // 2
    return np.pad(signal, [(before, spec.samples - len(signal) - before), (0, 0)])


def compare(spec: SignalSpec, quick: bool) -> tuple[tuple[Timing, ...], dict[str, object]]:
    """Times both on the same records after checking that they agree; returns timings and facts."""
    ecg_uv, mains_hz = make_ecgs(BATCH), np.where(np.arange(BATCH) % 2, 60.0, 50.0).astype(np.float32)
    started = time.perf_counter()
    operators = build_operators(spec)
    build_s = time.perf_counter() - started
    on_device = jax.device_put((operators, ecg_uv, {"mains_hz": mains_hz}, {"mains_hz": np.ones(BATCH, bool)}))

    def ours() -> jax.Array:
        return jax.block_until_ready(preprocess(spec, *on_device)).signal

    def peer() -> list[np.ndarray]:
        return [scipy_chain(spec, ecg_uv[i], float(mains_hz[i])) for i in range(_SCIPY_RECORDS)]

    difference_mv = float(jnp.abs(ours()[:_SCIPY_RECORDS] - np.stack(peer())).max())
    if difference_mv > _TOLERANCE_MV:
        raise SystemExit(f"{spec.name}: ours and scipy differ by {difference_mv} mV: no timing before they agree")
    timings = measure([Arm("preprocess", ours, BATCH), Arm("scipy", peer, _SCIPY_RECORDS)], quick=quick)
    n_numbers = sum(np.size(leaf) for leaf in jax.tree.leaves(operators))
    facts: dict[str, object] = {
        f"{spec.name}: largest difference (mV)": difference_mv,
        f"{spec.name}: operators built in (s)": round(build_s, 2),
        f"{spec.name}: operators (MB, three mains variants)": round(n_numbers * 4 / 1e6, 1),
    }
    return timings, facts


def run(quick: bool) -> Report:
    """Times ECGCLIP's input as the report's arms, and the demo's as facts."""
    timings, facts = compare(ecgclip(), quick)
    demo_timings, demo_facts = compare(DEMO, quick)
    for timing in demo_timings:
        disturbed = "" if timing.clean else " (disturbed)"
        facts[f"{DEMO.name}: {timing.name} (ECG/s)"] = f"{1 / timing.median_s:,.0f}{disturbed}"
        facts[f"{DEMO.name}: {timing.name} (ECG/s per core)"] = f"{1 / timing.cpu_s_per_item:,.0f}"
    return Report(
        name="preprocessing",
        item="ECG",
        timings=timings,
        notes=(f"{ecgclip().name} input, batches of {BATCH}, mains 50 and 60 Hz mixed; int16 in, float32 out",),
        facts=facts | demo_facts,
    )


if __name__ == "__main__":
    main(run, __doc__)
