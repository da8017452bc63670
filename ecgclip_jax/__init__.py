"""ecgclip_jax: contrastive pre-training on ECGs and reports, from a hospital's files to numbers one can believe.

The public names load lazily: `import ecgclip_jax` costs nothing, and loader workers never import jax by accident.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecgclip_jax.inference import Model, load_model
    from ecgclip_jax.signal.readers import read_ecg
    from ecgclip_jax.signal.storage import to_stored
    from ecgclip_jax.spec.experiment import Experiment
    from ecgclip_jax.spec.files import load_experiment

# Without this transformers tells every user that PyTorch is missing, which is how this package means it.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

__version__ = "0.1.0"
__all__ = ["Experiment", "Model", "load_experiment", "load_model", "read_ecg", "to_stored"]

_HOMES = {
    "Experiment": "ecgclip_jax.spec.experiment",
    "Model": "ecgclip_jax.inference",
    "load_experiment": "ecgclip_jax.spec.files",
    "load_model": "ecgclip_jax.inference",
    "read_ecg": "ecgclip_jax.signal.readers",
    "to_stored": "ecgclip_jax.signal.storage",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'ecgclip_jax' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
