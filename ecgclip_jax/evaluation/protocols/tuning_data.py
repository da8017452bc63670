"""What fine-tuning reads: ECGs preprocessed once, so that many fine-tunes share them, and masked labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, no_type_check, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int16

from ecgclip_jax.contracts import EcgInput
from ecgclip_jax.signal.preprocessing import build_operators, preprocess
from ecgclip_jax.spec.experiment import Experiment

PREPROCESSED_AT_A_TIME = 64
Chunk = tuple[Int16[np.ndarray, "_ 5000 12"], Float[np.ndarray, "_"]]
"""Stored ECGs and their mains frequencies in Hz, NaN where unknown."""
Extras = dict[str, np.ndarray]
"""Facts of each record by name, or whether they are known."""


@runtime_checkable
class Tunable(Protocol):
    """The part of `ecgclip_jax.inference.Model` that fine-tuning starts from: trained weights or random ones."""

    @property
    def experiment(self) -> Experiment:
        """Input and architecture."""

    @property
    def params(self) -> dict[str, Any]:
        """With the encoder's under `ecg`."""

    @property
    def batch_stats(self) -> dict[str, Any]:
        """With the encoder's under `ecg`."""


@dataclass(frozen=True, eq=False)
class TuningData:
    """Some ECGs of a split with their labels; a subset shares the signals of the whole."""

    ecg: EcgInput
    """All ECGs of the split, on the host, of which `rows` count."""
    rows: Int[np.ndarray, "records"]
    positive: Bool[np.ndarray, "records labels"]
    known: Bool[np.ndarray, "records labels"]
    weight: Float[np.ndarray, "records"] | None = None
    """Sampling weight: how many records of the source each stands for. None: all alike."""

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: Int[np.ndarray, "chosen"]) -> TuningData:
        """The records at some positions (a draw of few labels)."""
        weight = None if self.weight is None else self.weight[chosen]
        return TuningData(self.ecg, self.rows[chosen], self.positive[chosen], self.known[chosen], weight)

    def label(self, column: int) -> TuningData:
        """One label by itself, with the records that know it."""
        knows = self.take(np.flatnonzero(self.known[:, column]))
        return replace(knows, positive=knows.positive[:, [column]], known=knows.known[:, [column]])

    @property
    def weights(self) -> Float[np.ndarray, "records labels"]:
        """Weight of each label of each record, 0 where it is unknown."""
        weight = np.ones(len(self)) if self.weight is None else self.weight.astype(np.float64)
        each: np.ndarray = self.known * weight[:, None]
        return each

    @property
    def both_classes(self) -> Bool[np.ndarray, "labels"]:
        """Labels with a positive and a negative of some weight."""
        weights = self.weights
        both: np.ndarray = (weights * self.positive).any(axis=0) & (weights * ~self.positive).any(axis=0)
        return both


def tuning_inputs(model: Tunable, records: int, chunks: Iterable[Chunk]) -> EcgInput:
    """The model's own input of `records` stored ECGs that come in chunks of any size, on the host.

    The signal is kept in float16, a rounding of at most 0.05 % of each value: 2 bytes per lead and sample, so that an
    ECG of 8 leads at 100 Hz takes 17 kB and one of 8 leads x 4,096 samples 70 kB (stored: 120 kB).

    Raises:
        ValueError: another number of ECGs in the chunks than `records`.
    """
    spec, view = model.experiment.signal, model.experiment.view
    lead = view.inference_lead if view.single_lead else None
    n_leads = model.experiment.encoder_leads
    signal = np.zeros((records, spec.samples, n_leads), np.float16)
    lead_present, sample_valid = np.zeros((records, n_leads), bool), np.zeros((records, spec.samples), bool)
    operators = jax.device_put(build_operators(spec))
    done = 0
    for n, *stored in full_batches(chunks):
        if done + n > records:
            raise ValueError(f"expected {records} ECGs in all chunks, found more")
        made = preprocess(spec, operators, *stored, lead)
        rows = slice(done, done + n)
        signal[rows] = np.asarray(made.signal)[:n]
        lead_present[rows] = np.asarray(made.lead_present)[:n]
        sample_valid[rows] = np.asarray(made.sample_valid)[:n]
        done += n
    if done != records:
        raise ValueError(f"expected {records} ECGs in all chunks, found {done}")
    made_once: EcgInput = host_input(signal, lead_present, sample_valid)
    return made_once


@no_type_check
def full_batches(chunks: Iterable[Chunk]) -> Iterator[tuple[int, np.ndarray, Extras, Extras]]:
    """Stored ECGs a fixed number at a time, a chunk's last filled up: how many count, and what `preprocess` takes."""
    for ecg_uv, mains_hz in chunks:
        for start in range(0, len(ecg_uv), PREPROCESSED_AT_A_TIME):
            part = slice(start, start + PREPROCESSED_AT_A_TIME)
            uv, mains = (filled(a[part], PREPROCESSED_AT_A_TIME) for a in (ecg_uv, mains_hz.astype(np.float32)))
            yield len(ecg_uv[part]), uv, {"mains_hz": mains}, {"mains_hz": np.isfinite(mains)}


@no_type_check
def host_input(
    signal: Float[np.ndarray, "records time lead"],
    lead_present: Bool[np.ndarray, "records lead"],
    sample_valid: Bool[np.ndarray, "records time"],
) -> EcgInput:
    """An encoder's input as arrays on the host."""
    return EcgInput(signal, lead_present, sample_valid)


@no_type_check
def ecg_rows(ecg: EcgInput, rows: Int[np.ndarray, "rows"]) -> EcgInput:
    """Some ECGs of a split, on the host."""
    return jax.tree.map(lambda values: values[rows], ecg)


def filled(values: np.ndarray, rows: int) -> np.ndarray:
    """`values` with rows of zeros appended up to `rows`."""
    missing = rows - len(values)
    return values if missing == 0 else np.concatenate([values, np.zeros((missing, *values.shape[1:]), values.dtype)])


def on_device(ecg: EcgInput) -> EcgInput:
    """The input in the dtype that encoders take."""
    signal: Array = ecg.signal.astype(jnp.float32)
    return EcgInput(signal, ecg.lead_present, ecg.sample_valid)
