"""Prompts: complete, hashed, and in words of their own."""

from __future__ import annotations

import re

import pytest

from ecgclip_jax.text.concepts import CONCEPTS
from ecgclip_jax.text.prompts import LANGUAGES, load_prompts, make_prompt_set
from ecgclip_jax.text.report_writer import report_phrases


def normalised(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_concept_has_prompts(language: str) -> None:
    loaded = load_prompts(language)
    assert loaded.language == language
    assert set(loaded.prompts) == set(CONCEPTS)
    assert all(len(wordings) >= 2 for wordings in loaded.prompts.values())
    wordings = [w for several in loaded.prompts.values() for w in several]
    assert len(set(map(str.lower, wordings))) == len(wordings), "one wording stands for two concepts"


def test_prompts_and_report_phrases_are_disjoint() -> None:
    phrases = {
        normalised(phrase) for entry in report_phrases().values() for several in entry.values() for phrase in several
    }
    for concept, wordings in load_prompts("en").prompts.items():
        for wording in wordings:
            assert normalised(wording) not in phrases, (concept, wording)
            assert not any(normalised(wording) in phrase for phrase in phrases), (concept, wording)


def test_the_words_of_named_concepts_can_be_learned_from_reports() -> None:
    """Prompts share medical words with the reports: most words of a prompt stand in some phrase or style."""
    known = set(
        normalised(
            " ".join(p for entry in report_phrases().values() for several in entry.values() for p in several)
        ).split()
    )
    for concept, wordings in load_prompts("en").prompts.items():
        if concept in report_phrases() and any(report_phrases()[concept][s] for s in ("clinical", "machine")):
            own = set(
                normalised(" ".join(p for s in ("clinical", "machine") for p in report_phrases()[concept][s])).split()
            )
            for wording in wordings:
                words = normalised(wording).split()
                assert own & set(words), (concept, wording)
                assert sum(w in known for w in words) >= 0.5 * len(words), (concept, wording)


def test_the_hash_follows_wording_and_language() -> None:
    one = make_prompt_set("en", {"a": ("x",)})
    assert one.sha == make_prompt_set("en", {"a": ("x",)}).sha
    assert one.sha != make_prompt_set("en", {"a": ("y",)}).sha
    assert one.sha != make_prompt_set("de", {"a": ("x",)}).sha


def test_errors_teach() -> None:
    with pytest.raises(ValueError, match="no prompts in language 'fr'"):
        load_prompts("fr")
    with pytest.raises(ValueError, match="at least one non-empty wording"):
        make_prompt_set("en", {"a": ()})
