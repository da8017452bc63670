"""A cohort built by an Apache Beam runner (Dataflow, Flink, Spark …), for those who have one.

One element per shard, written by the same `write_shard` as everywhere. Beam is trusted with nothing else: what it
reports is not read, and the files are counted afterwards (its local runner was seen to lose examples silently). All
workers must see the source folder and the data directory under the same paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tfds_builders.common.build import Prepared, building_in, found_built, places_of
from tfds_builders.common.cluster import merge, shared_parts, unfinished
from tfds_builders.common.cohort import BuildError, Cohort, Shard
from tfds_builders.common.shards import write_shard


def build_with_beam(
    cohort: Cohort, data_dir: Path, arguments: Sequence[str], *, overwrite: bool = False, beam: Any = None
) -> Prepared:
    """Builds the cohort in a Beam pipeline, then counts and merges.

    Args:
      cohort: what to build.
      data_dir: where, on storage that all workers share.
      arguments: Beam's own, such as `--runner=FlinkRunner`.
      overwrite: replace a dataset built from another source or with other options.
      beam: the package; None imports it.

    Raises:
      BuildError: Beam is not installed; or, after the run, shards are missing or hold other counts than they should.
    """
    beam = beam or import_beam()
    plan, places = cohort.plan(), places_of(cohort, data_dir)
    if not overwrite and (standing := found_built(cohort, plan, places.folder)):
        return standing
    with building_in(places.staging, together=True):
        parts = shared_parts(cohort, plan, places.staging)
        options = beam.options.pipeline_options.PipelineOptions(list(arguments))
        with beam.Pipeline(options=options) as pipeline:
            shards = pipeline | beam.Create(unfinished(plan.shards, parts))
            _ = shards | beam.ParDo(shard_writer(beam)(cohort, parts))
    return merge(cohort, data_dir, overwrite=overwrite)


def import_beam() -> ModuleType:
    """The Beam package.

    Raises:
      BuildError: it is not installed; how to get it.
    """
    try:
        import apache_beam
        import apache_beam.options.pipeline_options
    except ImportError as error:
        raise BuildError(
            f"Apache Beam is not installed ({error}): pip install 'ecgclip_jax[beam]' here and on the workers. Without "
            "a runner of your own it is not worth it: `--workers` uses all cores, `--shards` all nodes of a cluster"
        ) from error
    beam: ModuleType = apache_beam
    return beam


def shard_writer(beam: Any) -> Any:
    """The `DoFn` that writes one shard per element; made here, because its base class is Beam's."""

    class WriteShard(beam.DoFn):  # type: ignore[name-defined]
        def __init__(self, cohort: Cohort, parts: Path) -> None:
            self._cohort, self._parts = cohort, parts

        def process(self, shard: Shard) -> Iterator[tuple[str, int, int]]:
            result = write_shard(self._cohort, shard, self._parts)
            yield result.split, result.index, result.records

    return WriteShard
