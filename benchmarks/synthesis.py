"""How fast the synthetic world draws ECGs on one core: twelve leads, ten seconds, findings, device and noise.

    python -m benchmarks.synthesis --quick

There is no peer that draws twelve leads with diagnoses; the target is 300 ECGs/s on one core.
"""

from __future__ import annotations

from threadpoolctl import threadpool_limits

from benchmarks.common import Arm, Report, main, measure
from ecgclip_jax.signal.synthesis import DEFAULT_WORLD, TRAINING_HOSPITALS, synthesize_ecgs

PATIENTS = 64


def run(quick: bool) -> Report:
    """Times chunks of patients of the first training hospital, single-threaded as in a builder's worker."""
    hospital = TRAINING_HOSPITALS[0]

    def draw() -> int:
        return len(synthesize_ecgs(DEFAULT_WORLD, hospital, range(PATIENTS), seed=0))

    with threadpool_limits(1):
        timings = measure([Arm("ours, one core", draw, items=draw())], quick=quick)
    return Report("synthesis", "ECG", timings)


if __name__ == "__main__":
    main(run, __doc__)
