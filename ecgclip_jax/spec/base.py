"""The one base of every specification: frozen, closed to unknown keys, hashable to a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

S = TypeVar("S", bound="Spec")


class Spec(BaseModel):
    """A frozen description of a part of an experiment; unknown keys and non-finite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def canonical_json(self) -> str:
        """The specification as JSON with sorted keys: equal specs give equal text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False, separators=(",", ":"))

    def fingerprint(self) -> str:
        """SHA-256 (16 hex digits) of the canonical JSON."""
        return hashlib.sha256(self.canonical_json().encode()).hexdigest()[:16]

    def replace(self: S, changes: Mapping[str, object]) -> S:
        """A validated copy with dotted keys changed, for example `{"run.steps": 6, "seed": 1}`.

        Raises:
            KeyError: a key that the specification does not have.
            pydantic.ValidationError: a value out of range, or parts that do not fit together.
        """
        tree = self.model_dump()
        for dotted, value in changes.items():
            *parents, leaf = dotted.split(".")
            node = tree
            for part in parents:
                node = node[part]
            if leaf not in node:
                raise KeyError(f"{type(self).__name__} has no {dotted!r}")
            node[leaf] = value.model_dump() if isinstance(value, BaseModel) else value
        return type(self).model_validate(tree)
