"""Files of results: what Python's own reader of JSON says of them, and that a bad value leaves the good file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ecgclip_jax.evaluation.results import write_json

CONTENT = {
    "rows": [{"label": 'left "axis"', "value": 0.5, "excluded": {"Vorhofflimmern, größer": [1, None]}}, {}],
    "seconds": {"probes": 1e-7, "deeper": {"yet": [[]]}},
    "nothing": [],
    "nobody": {},
    "warnings": ["two\nlines"],
    "synthetic": True,
}


@pytest.mark.parametrize("content", [CONTENT, list(CONTENT.values()), {}, [], "text", 1.5, None])
def test_json_says_what_was_given(content: object, tmp_path: Path) -> None:
    assert json.loads(write_json(tmp_path / "new" / "it.json", content).read_text(encoding="utf-8")) == content


def test_every_row_has_a_line(tmp_path: Path) -> None:
    lines = write_json(tmp_path / "it.json", CONTENT).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line.removesuffix(",")) for line in lines if line.startswith('{"label"')] == CONTENT["rows"][:1]  # type: ignore[index]
    assert "größer" in "".join(lines)


def test_a_value_that_json_has_not_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_json(tmp_path / "it.json", [1])
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"rows": [{"value": math.nan}]}, allow_nan=False)
    assert json.loads(path.read_text()) == [1]
