"""The position paper's grid of untrained encoders (arXiv 2602.17531): what random weights give behind each input.

Three rates × {as is, z-scored per lead, z-scored over the data set} × {no filter, Butterworth of order 5, 0.5 to 40 Hz}
× {MERL's ResNet-18, MERL's ViT}. All 36 are said to have 512 features, so the ViT is taken to be MERL's of width 512
(our reading). Mean and standard deviation over the data set are those of each lead over the training records that a
probe learns from (our reading). Rates below 500 Hz are reached by a polyphase filter instead of linear interpolation
(ours).
"""

from __future__ import annotations

from itertools import product
from typing import Literal

from ecgclip_jax.spec.encoders import EcgEncoderSpec, ResNet1DSpec, ViT1DSpec
from ecgclip_jax.spec.experiment import DataSpec, Experiment
from ecgclip_jax.spec.objectives import SupervisedSpec
from ecgclip_jax.spec.signal import LEADS_12, Bandpass, SignalSpec

RATES_HZ = (500, 250, 100)
NORMALISATIONS: dict[str, Literal["none", "zscore_lead", "zscore_dataset"]] = {
    "": "none",
    ", z-scored": "zscore_lead",
    ", z-scored over the data set": "zscore_dataset",
}
"""By what stands in an encoder's name."""
ENCODERS: dict[str, EcgEncoderSpec] = {"ResNet-18": ResNet1DSpec(depth=18), "ViT": ViT1DSpec(width=512, heads=8)}


def random_grid(data: DataSpec) -> dict[str, Experiment]:
    """By name in tables; `data` is what the run beside it learnt from, for these learn from nothing."""
    found = {}
    for (kind, encoder), rate_hz, (scaled, normalisation), filtered in product(
        ENCODERS.items(), RATES_HZ, NORMALISATIONS.items(), (False, True)
    ):
        name = f"random {kind}, {rate_hz} Hz{scaled}{', 0.5-40 Hz' * filtered}"
        found[name] = Experiment(
            name=name,
            summary=f"an untrained {kind}",
            data=DataSpec(sources=data.sources, batch_global=data.batch_global),
            signal=SignalSpec(
                name=name,
                rate_hz=rate_hz,
                samples=10 * rate_hz,
                leads=LEADS_12,
                normalisation=normalisation,
                bandpass=Bandpass(order=5, low_hz=0.5, high_hz=40.0) if filtered else None,
            ),
            ecg_encoder=encoder,
            text_encoder=None,
            objective=SupervisedSpec(measurements=("age_years",)),
        )
    return found
