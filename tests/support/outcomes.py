"""What a cohort makes of its records, without writing shards."""

from __future__ import annotations

from tfds_builders.common.cohort import Cohort, SourceOutcome


def outcomes(cohort: Cohort) -> dict[str, SourceOutcome]:
    """By record id: what became of every record that the plan puts into a shard."""
    plan = cohort.plan()
    found = [outcome for shard in plan.shards for outcome in cohort.convert(shard)]
    assert len(found) + len(plan.dropped) == plan.source_rows
    assert len({outcome.record_id for outcome in found}) == len(found)
    return {outcome.record_id: outcome for outcome in found}
