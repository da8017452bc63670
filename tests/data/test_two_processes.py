"""Two real processes of two devices each: what they read and place makes up the global batches of one process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np

from ecgclip_jax.data.index import build_index
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.spec.experiment import DataSpec, Source

PROGRAM = """
import sys
import jax
import numpy as np
from ecgclip_jax.data.index import build_index
from ecgclip_jax.data.pipeline import TrainPipeline
from ecgclip_jax.parallel.host import process_rows, replicated, to_global
from ecgclip_jax.parallel.mesh import build_mesh
from ecgclip_jax.spec.experiment import DataSpec, MeshSpec, Source

data_dir, address, process, out = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
jax.distributed.initialize(address, num_processes=2, process_id=process)
mesh = build_mesh(MeshSpec(fsdp=2))
index = build_index(DataSpec(sources=(Source(cohort="tiny"),)), data_dir, seed=1)
pipeline = TrainPipeline(index, None, max_tokens=8, batch_global=16, process_index=process, process_count=2)
assert process_rows(mesh, 16) == range(8 * process, 8 * process + 8)
whole = jax.jit(lambda batch: (batch.record_row, batch.ecg_uv[:, 0, 0]), out_shardings=replicated(mesh))
batches = pipeline.batches(2)
seen = [jax.device_get(whole(to_global(next(batches), mesh))) for _ in range(3)]
batches.close()
np.savez(out, rows=[r for r, _ in seen], first_uv=[e for _, e in seen])
"""


def test_two_processes_place_the_batches_of_one(tiny_data_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    running = [
        subprocess.Popen(
            [sys.executable, tmp_path / "program.py", tiny_data_dir, address, str(p), tmp_path / f"{p}.npz"],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for p in range(2)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], errors
    index = build_index(DataSpec(sources=(Source(cohort="tiny"),)), tiny_data_dir, seed=1)
    batches = TrainPipeline(index, None, max_tokens=8, batch_global=16).batches(2)
    expected = list(islice(batches, 3))
    batches.close()
    for p in range(2):
        found = np.load(tmp_path / f"{p}.npz")
        np.testing.assert_array_equal(found["rows"], [b.record_row for b in expected])
        np.testing.assert_array_equal(found["first_uv"], [b.ecg_uv[:, 0, 0] for b in expected])
