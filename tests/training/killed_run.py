"""Started by a test: trains the tiny experiment and kills itself without warning after an update, in mid-epoch."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from support.tiny_training import tiny_run, train_on_one_device  # noqa: E402

if __name__ == "__main__":
    workdir, data_dir, saved_step, last_step = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

    def die(step: int, state: object) -> dict[str, float]:
        """SIGKILL, as soon as an earlier step is saved."""
        while not (workdir / "checkpoints" / saved_step).is_dir():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    train_on_one_device(tiny_run(evaluate_every=last_step), workdir, data_dir, evaluate=die)
