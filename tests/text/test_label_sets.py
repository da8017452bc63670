"""Label sets: rules on hand-made records, defects on the records that show them."""

from __future__ import annotations

import pytest

from ecgclip_jax.text.code_tables import VOCABULARIES, code_rows
from ecgclip_jax.text.concepts import CONCEPTS
from ecgclip_jax.text.label_sets import LabelSet, LabelSetError, first_acronyms, label_set, label_set_names
from ecgclip_jax.text.prompts import load_prompts

SIZES = {
    "ptb_xl/super": 5,
    "ptb_xl/sub": 23,
    "ptb_xl/form": 19,
    "ptb_xl/rhythm": 12,
    "ptb_xl/all": 71,
    "ptb_xl/sub_cleaned": 19,
    "ptb_xl/form_cleaned": 15,
    "ptb_xl/rhythm_cleaned": 7,
    "ptb_xl/all_cleaned": 58,
    "cpsc2018": 9,
    "cpsc2018/challenge": 9,
    "csn/merl-published": 38,
    "csn/fixed": 38,
    "challenge2021": 26,
    "csn/ecg-fix": 48,
    "ptb_xl/diagnostic": 44,
    "ptb_xl/sub_merl_train": 23,
}


def positives(labels: LabelSet, *codes: str) -> set[str] | None:
    found = labels.labels_of(codes)
    assert found.known.all() if found.belongs else not (found.known | found.positive).any()
    return {c.name for c, p in zip(labels.classes, found.positive, strict=True) if p} if found.belongs else None


def test_sets_have_their_published_numbers_of_classes() -> None:
    assert {name: len(label_set(name).classes) for name in label_set_names()} == SIZES


@pytest.mark.parametrize("name", SIZES)
def test_classes_are_codes_of_the_vocabulary_and_have_prompts(name: str) -> None:
    labels = label_set(name)
    prompts = load_prompts("en").prompts
    assert labels.vocabulary in VOCABULARIES
    assert labels.source
    assert len({c.name for c in labels.classes}) == len(labels.classes)
    for label in labels.classes:
        assert label.codes
        assert label.codes <= set(code_rows(labels.vocabulary)), label.name
        assert label.concepts
        assert set(label.concepts) <= set(CONCEPTS) & set(prompts), label.name


def test_a_class_and_its_codes_speak_of_the_same_concept() -> None:
    """Every code of a class states a concept that the class is asked by, up to families and to CPSC's 'normal'."""
    families = {"ptb_xl/super", "ptb_xl/sub", "ptb_xl/sub_cleaned", "ptb_xl/sub_merl_train"}
    unstated = {("cpsc2018/challenge", "NORM"), ("csn/ecg-fix", "FQRS")}
    for name in set(SIZES) - families:
        labels = label_set(name)
        for label in labels.classes:
            for code in label.codes:
                stated = set(code_rows(labels.vocabulary)[code].concepts)
                assert set(label.concepts) & stated or (name, label.name) in unstated, (name, label.name, code)


def test_ptb_xl_groups_keep_only_records_that_have_one() -> None:
    assert positives(label_set("ptb_xl/super"), "IMI", "LVH", "SR") == {"MI", "HYP"}
    assert positives(label_set("ptb_xl/super"), "SR", "PVC", "INVT") is None
    assert positives(label_set("ptb_xl/sub"), "1AVB", "ISC_", "INJAS") == {"AVB", "ISC", "AMI"}
    assert positives(label_set("ptb_xl/form"), "NST_", "STD_", "SR") == {"NST", "STD"}
    assert positives(label_set("ptb_xl/rhythm"), "SR", "NORM") == {"SR"}
    assert positives(label_set("ptb_xl/sub_cleaned"), "WPW") is None
    assert positives(label_set("ptb_xl/all"), "WPW", "SR") == {"WPW", "SR"}


def test_likelihoods_below_a_minimum_are_unknown_not_absent() -> None:
    labels, names = label_set("ptb_xl/super"), ["HYP", "NORM", "MI", "CD", "STTC"]
    record = ("IMI", "LVH", "AMI", "NDT", "SR"), (35.0, 100.0, 15.0, 0.0, 0.0)
    published = labels.labels_of(*record)
    assert published.positive.tolist() == [n in {"HYP", "MI", "STTC"} for n in names]
    assert published.known.all()
    cautious = labels.labels_of(*record, minimum_likelihood=50.0)
    assert cautious.positive.tolist() == [n in {"HYP", "STTC"} for n in names]
    assert cautious.known.tolist() == [n != "MI" for n in names]
    with pytest.raises(LabelSetError, match="one value per code, found 1 for 2"):
        labels.labels_of(["IMI", "LVH"], [100.0])


def test_merl_finds_acronyms_inside_acronyms_and_the_fixed_set_does_not() -> None:
    published, fixed = label_set("csn/merl-published"), label_set("csn/fixed")
    assert [c.name for c in published.classes] == [c.name for c in fixed.classes]
    first_degree, mobitz_1, fibrillation, st_depression = "270492004", "54016002", "164889003", "429622005"
    counterclockwise, bradycardia, low_voltage, outside = "251199005", "426177001", "251146004", "55930002"
    assert positives(published, first_degree) == {"1AVB", "AVB", "VB"}
    assert positives(published, mobitz_1) == {"2AVB1", "2AVB", "AVB", "VB"}
    assert positives(published, fibrillation, st_depression) == {"AFIB", "AF", "STDD", "ST"}
    assert positives(published, counterclockwise) == {"CCR", "CR"}
    assert positives(published, bradycardia, low_voltage) == {"SA"}
    assert positives(published, bradycardia) is None
    assert positives(published, fibrillation, outside) is None
    assert positives(fixed, first_degree) == {"1AVB"}
    assert positives(fixed, mobitz_1) == {"2AVB1"}
    assert positives(fixed, fibrillation, st_depression, outside) == {"AFIB", "STDD"}
    assert positives(fixed, bradycardia, low_voltage) == set(), "known to have none of the 38 classes"
    assert positives(fixed) is None


def test_ecg_fix_leaves_out_records_with_a_code_outside_its_vocabulary() -> None:
    labels = label_set("csn/ecg-fix")
    assert positives(labels, "164889003", "426177001") == {"AFIB", "SB"}
    assert positives(labels, "164889003", "27885002") is None, "third degree block is outside"
    assert positives(labels, "164865005") == {"MISW"}
    assert positives(labels) is None


def test_merls_train_columns_are_the_sub_classes_with_three_shifted() -> None:
    train, others = ([c.name for c in label_set(f"ptb_xl/{name}").classes] for name in ("sub_merl_train", "sub"))
    assert [(a, b) for a, b in zip(train, others, strict=True) if a != b] == [
        ("AVB", "ISC"), ("RAO/RAE", "AVB"), ("ISC", "RAO/RAE"),
    ]  # fmt: skip
    assert sorted(train) == sorted(others)


def test_shared_codes_take_the_first_acronym() -> None:
    acronyms = first_acronyms()
    assert (acronyms["698252002"], acronyms["164865005"], acronyms["195101003"]) == ("IDC", "MI", "WAVN")


def test_the_challenge_scores_four_pairs_as_one() -> None:
    labels = label_set("challenge2021")
    assert {c.name for c in labels.classes if len(c.codes) == 2} == {
        "CLBBB|LBBB",
        "CRBBB|RBBB",
        "PAC|SVPB",
        "PVC|VPB",
    }
    assert positives(labels, "59118001", "63593006") == {"CRBBB|RBBB", "PAC|SVPB"}
    assert positives(labels, "733534002") == positives(labels, "164909002") == {"CLBBB|LBBB"}
    assert positives(labels, "164884008") == set(), "CPSC2018's ectopics are not scored"
    assert positives(labels) is None


def test_cpsc2018_in_both_forms() -> None:
    assert positives(label_set("cpsc2018"), "5", "2") == {"CRBBB", "AFIB"}
    assert positives(label_set("cpsc2018/challenge"), "59118001", "164889003") == {"CRBBB", "AFIB"}


def test_unknown_names_teach() -> None:
    with pytest.raises(LabelSetError, match=r"no label set 'csn'; near it: .*csn/"):
        label_set("csn")
