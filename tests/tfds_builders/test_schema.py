"""A record's bytes against TFDS's own serialiser and reader."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from support.tiny_cohort import tiny_record
from tensorflow_datasets.core.example_serializer import ExampleSerializer
from tensorflow_datasets.proto import tf_example_pb2

from tfds_builders.common.example_wire import blob_feature, entry, example, float_feature, int64_feature, map_key
from tfds_builders.common.schema import Record, features


def full_record() -> Record:
    return tiny_record(
        3,
        age_years=61.5,
        report="Sinus rhythm, Überleitung",
        label_codes=("a", "ü"),
        label_values=(100.0, 0.1),
        measurement_names=("qrs_ms",),
        measurement_values=(90.25,),
        annotation_codes=("N", "(AFIB"),
        annotation_samples=(0, 4999),
        annotation_leads=("", "II"),
        lead_present=np.arange(12) % 2 == 0,
    )


@pytest.mark.parametrize(
    "record",
    [
        tiny_record(0),
        full_record(),
        *(replace(full_record(), age_years=age, label_values=(age,)) for age in (0.0, -0.0)),
    ],
    ids=["lists empty", "lists full", "zero", "minus zero: equal, yet other bits"],
)
def test_bytes_are_those_of_tfds_in_a_fixed_order(record: Record) -> None:
    example = {field.name: getattr(record, field.name) for field in fields(record)}
    theirs = ExampleSerializer(features().get_serialized_info()).get_tf_example(features().encode_example(example))
    assert record.serialised() == theirs.SerializeToString(deterministic=True)


def test_numbers_of_any_size_are_protobufs() -> None:
    numbers, floats = [0, 127, 128, -1, 2**31 - 1, -(2**63)], [0.5, -0.0, 1e39, -1e300, float("inf")]
    theirs = tf_example_pb2.Example()
    theirs.features.feature["a"].int64_list.value.extend(numbers)
    theirs.features.feature["b"].float_list.value.extend(floats)
    theirs.features.feature["c"].bytes_list.value.append(b"x" * 300)
    ours = example(
        [
            entry(map_key("a"), int64_feature(numbers)),
            entry(map_key("b"), float_feature(floats)),
            entry(map_key("c"), blob_feature(memoryview(b"x" * 300))),
        ]
    )
    assert ours == theirs.SerializeToString(deterministic=True)


def test_tfds_reads_back_what_was_written() -> None:
    record = full_record()
    read: dict[str, Any] = features().deserialize_example_np(record.serialised())
    np.testing.assert_array_equal(read["ecg_uv"], record.ecg_uv)
    np.testing.assert_array_equal(read["lead_present"], record.lead_present)
    assert read["report_raw"].decode() == record.report_raw
    assert [code.decode() for code in read["label_codes"]] == list(record.label_codes)
    assert list(read["annotation_samples"]) == [0, 4999]
    assert read["age_years"] == np.float32(61.5)
    assert np.isnan(read["smoker"])
