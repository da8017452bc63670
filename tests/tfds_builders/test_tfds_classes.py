"""Every cohort as a TFDS builder: found by name, picklable, TensorFlow-free, the same folder as `ecgclip prepare`."""

from __future__ import annotations

import pickle
import sys
from importlib import import_module
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

import tfds_builders.ptb_xl
from tfds_builders.common.build import build
from tfds_builders.ptb_xl.cohort import PtbXl
from tfds_builders.registry import BUILDERS

DUMMY = Path(tfds_builders.ptb_xl.__file__).parent / "dummy_data"


@pytest.mark.parametrize("name", BUILDERS)
def test_metadata_of_the_package_is_valid(name: str, tmp_path: Path) -> None:
    module = import_module(f"tfds_builders.{name}.{name}_dataset_builder")
    builder = module.Builder(data_dir=str(tmp_path))
    assert builder.name == name
    assert builder.info.description == module.FACTS.description
    assert builder.info.citation == module.FACTS.citation
    assert module.Builder.get_metadata().tags


def test_download_and_prepare_gives_the_same_folder(tmp_path: Path) -> None:
    import_module("tfds_builders.ptb_xl.ptb_xl_dataset_builder")
    builder = tfds.builder("ptb_xl", data_dir=str(tmp_path / "tfds"), source=str(DUMMY), workers=0)
    builder = pickle.loads(pickle.dumps(builder))
    builder.download_and_prepare()
    assert len(builder.as_data_source(split="train")) == 1
    ours = build(PtbXl(DUMMY), tmp_path / "ours", workers=0).folder
    theirs = tmp_path / "tfds" / "ptb_xl" / "1.0.3"
    for path in (path for path in ours.rglob("*") if path.is_file()):
        if path.name != "dataset_info.json":  # TFDS names the module there
            assert path.read_bytes() == (theirs / path.relative_to(ours)).read_bytes(), path.name
    assert "tensorflow" not in sys.modules
