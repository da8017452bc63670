"""Imported once by the server that workers are forked from (`worker.start_server`), and by nothing else.

One assessment loads the compiled passes, so that no worker has to; what is there then is nobody's garbage.
"""

from __future__ import annotations

import gc

import numpy as np
from array_record.python import array_record_module  # noqa: F401

from ecgclip_jax.signal.quality import assess
from ecgclip_jax.spec.signal import STORED_LEADS, STORED_SAMPLES
from tfds_builders.common import shards, table_cohort  # noqa: F401

assess(np.zeros((STORED_SAMPLES, len(STORED_LEADS)), np.int16))
gc.freeze()
