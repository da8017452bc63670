"""Prompts: complete, hashed, and in words of their own."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ecgclip_jax.text.concepts import CONCEPTS
from ecgclip_jax.text.prompt_files import PromptFileError, merl_prompt_sets, read_prompt_file
from ecgclip_jax.text.prompts import LANGUAGES, PROMPT_SETS, load_prompts, make_prompt_set
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


def test_every_set_has_every_concept_in_english_and_none_elsewhere() -> None:
    for name in PROMPT_SETS:
        loaded = load_prompts("en", name)
        assert loaded.name == name
        assert set(loaded.prompts) == set(CONCEPTS)
    assert len({load_prompts("en", name).sha for name in PROMPT_SETS}) == len(PROMPT_SETS)
    lists = [listed for (listed,) in load_prompts("en", "attributes").prompts.values()]
    assert len(set(lists)) == len(lists)
    assert all("," in listed for listed in lists)
    assert load_prompts("en", "class_names").prompts["left_bundle_branch_block"] == ("Left bundle branch block",)
    assert not load_prompts("de", "attributes").prompts


def test_a_label_is_asked_by_its_own_name_or_by_all_of_its_concepts() -> None:
    prompts = make_prompt_set("en", {"AFIB": ("a",), "x": ("b", "c"), "y": ("d",)})
    assert prompts.wordings("AFIB", ("x",)) == ("a",)
    assert prompts.wordings("ISCA", ("x", "y")) == ("b", "c", "d")
    assert prompts.wordings("ISCA", ("x", "absent")) == ()


def test_own_files_and_merls_form_of_them(tmp_path: Path) -> None:
    file = tmp_path / "ours.json"
    file.write_text(json.dumps({"AF": "Flutter, Saw.", "CR": ["one", "two"]}))
    (own,) = read_prompt_file(file)
    assert (own.name, own.prompts) == ("ours", {"AF": ("Flutter, Saw.",), "CR": ("one", "two")})
    for wrong in ("[1]", "{}", '{"a": []}', '{"a": [" "]}', '{"a": 3}', "no json"):
        file.write_text(wrong)
        with pytest.raises(PromptFileError, match=r"ours\.json"):
            read_prompt_file(file)
    with pytest.raises(PromptFileError, match="No such file"):
        read_prompt_file(tmp_path / "gone.json")


def test_repairs_take_away_faulty_phrases_and_nothing_else() -> None:
    chat = "Based on the input, I made a list, as asked:* Pairs of beats* BeatsLet me know if more is needed!."
    made = {"BIGU": chat, "AF": "Flutter, Atrial Fibrillation, Slow Flutter.", "X": "Fibrillation, kept."}
    released, repaired = merl_prompt_sets(made)
    assert released.prompts == {name: (text.lower(),) for name, text in made.items()}
    assert repaired.prompts["BIGU"] == ("pairs of beats, beats.",)
    assert repaired.prompts["AF"] == ("flutter, slow flutter.",)
    assert repaired.prompts["X"] == released.prompts["X"]
    assert released.sha != repaired.sha
