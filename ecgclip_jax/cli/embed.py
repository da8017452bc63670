"""`ecgclip embed RUN COHORT/SPLIT`: every ECG of a cohort through a run's model, into arrays for other tools."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro
from rich.console import Console

from ecgclip_jax.cli.generated import prepare_generated
from ecgclip_jax.cli.options import default_data_dir, parse
from ecgclip_jax.spec.errors import UserError
from ecgclip_jax.spec.experiment import Source


@dataclass
class EmbedArguments:
    """Embed a prepared cohort. The same command goes on where it was stopped, and does nothing when all is done.

    Writes embedding.npy, features.npy, records.parquet and facts.json, one row per record in the split's order.
    """

    run: tyro.conf.Positional[Path]
    """Run folder, as `ecgclip train` wrote it."""
    split: tyro.conf.Positional[str]
    """COHORT/SPLIT, for example ptb_xl/test."""
    out: Path | None = None
    """Folder for the arrays; without it RUN/embeddings/COHORT-VERSION-SPLIT."""
    data_dir: Path = field(default_factory=default_data_dir)
    """Folder of prepared cohorts ($ECGCLIP_DATA or ./data)."""
    step: int | None = None
    """Checkpoint; without it the newest."""
    batch: int | None = None
    """ECGs at a time; without it as many as take half of the devices' free memory, at most 512 per device."""
    with_patient_data: bool = False
    """Above access class `open`: write them all the same, with pseudonyms for ids."""


def main(words: list[str]) -> int:
    """Embeds and says how fast."""
    arguments, console = parse(EmbedArguments, words, "embed"), Console()
    cohort, separator, name = arguments.split.partition("/")
    if not separator or not cohort or not name:
        raise UserError(f"expected COHORT/SPLIT, for example ptb_xl/test; found {arguments.split!r}")
    prepare_generated((cohort,), arguments.data_dir, console)
    from ecgclip_jax.data.sources import open_cohort
    from ecgclip_jax.evaluation.cohort_embedding import embed_cohort
    from ecgclip_jax.evaluation.embedding import split_name
    from ecgclip_jax.inference import load_model

    split = open_cohort(arguments.data_dir, Source(cohort=cohort, split=name))
    model = load_model(arguments.run, arguments.step)
    folder = arguments.out or arguments.run / "embeddings" / split_name(split)
    batch = arguments.batch or model.ecg_batch(len(split))
    done = embed_cohort(model, split, folder, batch=batch, with_patient_data=arguments.with_patient_data)
    speed = f", {done.ecg_per_s:,.0f} ECG/s in batches of {batch}" if done.computed else ", all done before"
    console.print(f"{done.records:,} ECGs{speed}\nembeddings {done.folder}", highlight=False, soft_wrap=True)
    return 0
