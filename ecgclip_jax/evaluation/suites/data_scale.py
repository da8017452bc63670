"""Inputs z-scored over the data set: mean and standard deviation of each lead over a set's training records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import jax
import numpy as np
from jaxtyping import Float

from ecgclip_jax.evaluation.embedding import Store, array_key
from ecgclip_jax.evaluation.protocols.tuning_data import full_batches
from ecgclip_jax.evaluation.suites.context import SuiteModel
from ecgclip_jax.evaluation.suites.opening import SuiteSplit
from ecgclip_jax.signal.preprocessing import FLAT_MV, build_operators, lead_moments
from ecgclip_jax.spec.signal import SignalSpec


def with_data_scale(models: Mapping[str, SuiteModel], train: SuiteSplit, store: Store) -> dict[str, SuiteModel]:
    """The models by name; those that are z-scored over a data set are given what `train` measures."""

    def measured(model: SuiteModel) -> SuiteModel:
        spec = model.experiment.signal
        if spec.normalisation != "zscore_dataset" or spec.lead_scale is not None:
            return model
        key = array_key("data scale", spec.replace({"name": ""}).canonical_json(), train.records_key)
        found = store.get(f"data-scale-{key}", key, ("scale",), lambda: {"scale": lead_scale(spec, train)})["scale"]
        scale = tuple((float(mean), float(sd)) for mean, sd in found)
        experiment = model.experiment.replace({"signal.lead_scale": scale})
        return replace(model, experiment=experiment)  # type: ignore[type-var]  # a dataclass behind its protocol

    return {name: measured(model) for name, model in models.items()}


def lead_scale(spec: SignalSpec, split: SuiteSplit) -> Float[np.ndarray, "lead 2"]:
    """Mean and (population) standard deviation of each lead's valid samples over a split, after the filters.

    A lead that is nowhere, or flat everywhere, is left as it is: mean 0 and standard deviation 1.
    """
    operators = jax.device_put(build_operators(spec))
    found = [np.zeros((3, 0, len(spec.leads)))]
    for n, *stored in full_batches(split.stored_chunks()):
        moments = lead_moments(spec, operators, *stored)
        found.append(np.stack([np.asarray(each, np.float64)[:n] for each in moments]))
    count, means, deviations = np.concatenate(found, axis=1)
    total = np.maximum(count.sum(axis=0), 1)
    mean = (count * means).sum(axis=0) / total
    sd = np.sqrt((deviations + count * (means - mean) ** 2).sum(axis=0) / total)
    varies = sd > FLAT_MV * spec.units_per_mv
    return np.stack([np.where(varies, mean, 0.0), np.where(varies, sd, 1.0)], axis=1)
