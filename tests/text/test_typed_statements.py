"""Typing of statements, held to statements typed by hand before the rules were written."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from ecgclip_jax.text.statements import (
    KINDS,
    TYPED_LANGUAGES,
    statement_rules,
    type_statement,
)

BY_HAND = Path(__file__).parent / "typed_statements.tsv"
TYPED_KINDS = tuple(kind for kind in KINDS if kind != "untyped")


def _by_hand() -> list[tuple[str, str, str]]:
    """Language, kind and text of each."""
    lines = [line for line in BY_HAND.read_text("utf-8").splitlines() if not line.startswith("#")]
    return [(language, kind, text) for language, kind, text in csv.reader(lines, delimiter="\t")]


def _scores(statements: Sequence[tuple[str, str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of each kind."""
    truth = [kind for _, kind, _ in statements]
    said = [type_statement(text, language) for language, _, text in statements]
    precision, recall, _, _ = precision_recall_fscore_support(truth, said, labels=TYPED_KINDS)
    return precision, recall


def test_the_hand_typed_set_is_large_and_covers_every_kind() -> None:
    statements = _by_hand()
    assert len({text.casefold() for _, _, text in statements}) == len(statements) >= 200
    for language, at_least in (("en", 100), ("de", 60)):
        of_language = [kind for spoken, kind, _ in statements if spoken == language]
        assert len(of_language) >= at_least
        assert set(of_language) == set(TYPED_KINDS)


def test_rules_and_hand_typed_statements_share_no_wording() -> None:
    held_out = [" ".join(text.casefold().split()) for _, _, text in _by_hand()]
    examples = [
        e.casefold() for language in TYPED_LANGUAGES for rule in statement_rules(language) for e in rule.examples
    ]
    assert len(examples) > 80
    for example in examples:
        assert not [text for text in held_out if example in text or text in example], example


@pytest.mark.parametrize("language", TYPED_LANGUAGES)
def test_every_rule_decides_its_own_examples(language: str) -> None:
    for rule in statement_rules(language):
        for example in rule.examples:
            assert type_statement(example, language) == rule.kind, (rule.about, example)
