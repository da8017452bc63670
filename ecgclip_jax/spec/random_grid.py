"""The position paper's grid of untrained encoders (arXiv 2602.17531): what random weights give behind each input.

Its 36 are three rates × {as is, z-scored per lead, z-scored over the data set} × {no filter, Butterworth of order 5,
0.5 to 40 Hz} × {MERL's ResNet-18, MERL's ViT}. Here are the 24 without the z-score over the data set, which no input
here has. All 36 are said to have 512 features, so the ViT is taken to be MERL's of width 512 (our reading). Rates below
500 Hz are reached by a polyphase filter instead of linear interpolation (ours).
"""

from __future__ import annotations

from itertools import product

from ecgclip_jax.spec.encoders import EcgEncoderSpec, ResNet1DSpec, ViT1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment
from ecgclip_jax.spec.objectives import SupervisedSpec
from ecgclip_jax.spec.signal import LEADS_12, Bandpass, SignalSpec

RATES_HZ = (500, 250, 100)
ENCODERS: dict[str, EcgEncoderSpec] = {"ResNet-18": ResNet1DSpec(depth=18), "ViT": ViT1DSpec(width=512, heads=8)}


def random_grid(data: DataSpec) -> dict[str, Experiment]:
    """By name in tables; `data` is what the run beside it learnt from, for these learn from nothing."""
    found = {}
    for (kind, encoder), rate_hz, z_scored, filtered in product(
        ENCODERS.items(), RATES_HZ, (False, True), (False, True)
    ):
        name = f"random {kind}, {rate_hz} Hz{', z-scored' * z_scored}{', 0.5-40 Hz' * filtered}"
        found[name] = Experiment(
            name=name,
            summary=f"an untrained {kind}",
            data=DataSpec(sources=data.sources, batch_global=data.batch_global),
            signal=SignalSpec(
                name=name,
                rate_hz=rate_hz,
                samples=10 * rate_hz,
                leads=LEADS_12,
                normalisation="zscore_lead" if z_scored else "none",
                bandpass=Bandpass(order=5, low_hz=0.5, high_hz=40.0) if filtered else None,
            ),
            ecg_encoder=encoder,
            text_encoder=None,
            objective=SupervisedSpec(measurements=("age_years",)),
        )
    return found
