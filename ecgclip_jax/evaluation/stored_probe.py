"""The linear probe of a run, kept as plain arrays, so that other records can be scored with it later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ecgclip_jax.evaluation.protocols.linear_probe import ProbeWeights
from ecgclip_jax.evaluation.protocols.logistic import Rotation
from ecgclip_jax.evaluation.tasks import EvaluationError
from ecgclip_jax.spec.whole_file import whole_file

FILE: Final = "probe.npz"
_ARRAYS: Final = ("mean", "axes", "variance", "weight", "bias", "fitted", "concepts", "model_fingerprint")


@dataclass(frozen=True)
class StoredProbe(ProbeWeights):
    """A probe as it was kept, with its labels."""

    concepts: tuple[str, ...]


def save_probe(folder: Path, probe: ProbeWeights, concepts: Sequence[str], model_fingerprint: str) -> Path:
    """Writes `probe.npz`; a broken write never replaces a good file."""
    path = folder / FILE
    with whole_file(path) as part, part.open("wb") as file:
        np.savez(
            file,
            mean=probe.rotation.mean,
            axes=probe.rotation.axes,
            variance=probe.rotation.variance,
            weight=probe.weight,
            bias=probe.bias,
            fitted=probe.fitted,
            concepts=np.array(concepts),
            model_fingerprint=np.array(model_fingerprint),
        )
    return path


def load_probe(folder: Path, model_fingerprint: str) -> StoredProbe:
    """The probe of a run's evaluation, fitted on the features of exactly this model.

    Raises:
        EvaluationError: none there, a damaged file, or the probe of another model.
    """
    path = folder / FILE
    if not path.is_file():
        raise EvaluationError(
            f"expected the stored probe {path}; run `ecgclip evaluate` first, which fits and keeps it"
        )
    try:
        with np.load(path, allow_pickle=False) as kept:
            found = {name: kept[name] for name in _ARRAYS}
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(f"{path} is damaged ({error}); run `ecgclip evaluate` again") from error
    if (fitted_on := str(found["model_fingerprint"])) != model_fingerprint:
        raise EvaluationError(
            f"{path} was fitted on model {fitted_on}, and this checkpoint is {model_fingerprint}; evaluate it, or name "
            "the --step that was evaluated"
        )
    rotation = Rotation(found["mean"], found["axes"], found["variance"])
    concepts = tuple(found["concepts"].tolist())
    return StoredProbe(rotation, found["weight"], found["bias"], found["fitted"], concepts)
