"""A tiny prepared cohort, written by hand in the layout of DESIGN.md: the reading side must not depend on a builder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core import example_serializer

from tfds_builders.common.schema import Record, features, records_table

DEFAULTS: Mapping[str, Any] = {
    "window_index": 0,
    "n_windows": 1,
    "patient_id_known": True,
    "age_years": 61.0,
    "age_censored": False,
    "sex": "female",
    "smoker": float("nan"),
    "diabetes": float("nan"),
    "systolic_mmhg": float("nan"),
    "total_cholesterol_mmol_l": float("nan"),
    "hdl_cholesterol_mmol_l": float("nan"),
    "height_cm": float("nan"),
    "weight_kg": float("nan"),
    "follow_up_years": float("nan"),
    "event_observed": float("nan"),
    "report_language": "en",
    "label_vocabulary": "synthetic",
    "label_codes": (),
    "label_values": (),
    "measurement_names": (),
    "measurement_values": (),
    "annotation_codes": (),
    "annotation_samples": (),
    "annotation_leads": (),
    "site": "A",
    "device": "cart",
    "rate_hz_source": 500.0,
    "resolution_uv": 5.0,
    "band_low_hz": float("nan"),
    "band_high_hz": float("nan"),
    "mains_hz": 50.0,
    "n_saturated": 0,
    "quality_flags": (),
    "source_row": "{}",
}


def tiny_ecg(number: int) -> np.ndarray:
    """A waveform `[5000, 12]` int16 that tells its number: every sample of lead I is `number`."""
    ecg = np.random.default_rng(number).integers(-300, 300, (5000, 12), dtype=np.int16)
    ecg[:, 0] = number
    return ecg


def tiny_record(number: int, **changes: Any) -> Record:
    """Record number `number`: two ECGs per patient, reports that repeat."""
    ecg = tiny_ecg(number)
    report = changes.pop("report", f"Sinus rhythm, variant {number % 5}.")
    fields = {
        "ecg_uv": ecg,
        "record_id": f"r{number:04d}",
        "patient_id": f"p{number // 2:04d}",
        "report_raw": report,
        "report_clean": report,
        "lead_present": np.ones(12, bool),
        "waveform_sha256": sha256(ecg.tobytes()).hexdigest(),
    }
    return Record(**{**DEFAULTS, **fields, **changes})


def write_cohort(
    data_dir: Path,
    splits: Mapping[str, Sequence[Record]],
    *,
    name: str = "tiny",
    version: str = "1.0.0",
    access: str = "open",
    records_per_shard: int = 16,
) -> Path:
    """Writes shards, metadata and sidecars of a prepared cohort; returns its folder."""
    folder = data_dir / name / version
    folder.mkdir(parents=True)
    serializer = example_serializer.ExampleSerializer(features().get_serialized_info())
    infos = []
    for split, records in splits.items():
        shards = [records[i : i + records_per_shard] for i in range(0, len(records), records_per_shard)]
        template = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name=name, split=split, filetype_suffix="array_record"
        )
        n_bytes = 0
        for k, shard in enumerate(shards):
            path = template.sharded_filepath(shard_index=k, num_shards=len(shards))
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for record in shard:
                example = {field.name: getattr(record, field.name) for field in fields(record)}
                serialized = serializer.serialize_example(features().encode_example(example))
                n_bytes += len(serialized)
                writer.write(serialized)
            writer.close()
        infos.append(
            tfds.core.SplitInfo(
                name=split, shard_lengths=[len(s) for s in shards], num_bytes=n_bytes, filename_template=template
            )
        )
        pq.write_table(records_table([r.row() for r in records]), folder / f"records-{split}.parquet")
    tfds.folder_dataset.write_metadata(data_dir=str(folder), features=features(), split_infos=infos, check_data=False)
    facts = {"name": name, "version": version, "access": access, "licence": "CC0-1.0", "citation": ""}
    (folder / "cohort.json").write_text(json.dumps(facts))
    return folder
