"""Kinds of statements that a report is made of: what an experiment may give to the text tower, and does by default."""

from __future__ import annotations

from typing import Literal, get_args

StatementKind = Literal["finding", "negated", "hedged", "comparison", "history", "demographics", "workflow", "untyped"]
"""`finding`: what this tracing shows, at whatever degree; `negated`: that something is absent; `hedged`: in doubt;
`comparison`: relation to another tracing; `history`: past, symptoms, drugs, indication; `demographics`: age, sex, size
and judgements relative to them; `workflow`: signature, status, advice, a device about its own analysis; `untyped`:
in a language without rules, so that nothing is known about it."""
STATEMENT_KINDS: tuple[StatementKind, ...] = get_args(StatementKind)
"""All of them: reports as they are."""
TRAINING_KINDS: tuple[StatementKind, ...] = ("finding", "negated", "hedged", "untyped")
"""What a text tower reads by default: what this tracing shows, and what nothing is known about."""
