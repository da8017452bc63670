"""The tokenizer: equal in every process, and read by transformers to the same ids."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from ecgclip_jax.spec.encoders import TokenizerSpec
from ecgclip_jax.text.tokenizer import (
    TokenizerError,
    encode_texts,
    fingerprint,
    load_tokenizer,
    make_tokenizer,
    save,
    train_wordpiece,
)

TEXTS = (
    "Sinus rhythm. Normal ECG.",
    "Atrial fibrillation with rapid ventricular response, left axis deviation.",
    "Sinusrhythmus. Überdrehter Linkstyp, kein Hinweis auf Ischämie.",
    "Sinus bradycardia; first-degree AV block (PR 240 ms).",
    "Left bundle branch block, QRS 150 ms.",
)


def test_the_vocabulary_is_the_same_in_another_process_and_in_another_order() -> None:
    """Trained twice in processes with their own hash seeds, texts reversed and repeated."""
    script = (
        "import json, sys; from ecgclip_jax.text.tokenizer import *; "
        "print(fingerprint(train_wordpiece(json.loads(sys.argv[1]), 200)))"
    )
    argument = json.dumps(list(TEXTS[::-1] * 2))
    run = subprocess.run([sys.executable, "-c", script, argument], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == fingerprint(train_wordpiece(TEXTS, 200))
    assert "PyTorch" not in run.stderr


def test_known_words_become_one_piece_and_unknown_characters_the_unknown_token() -> None:
    tokenizer = train_wordpiece(TEXTS * 3, 200)
    assert tokenizer.tokenize("SINUS rhythm.") == ["sinus", "rhythm", "."]
    assert tokenizer.tokenize("心電図")[0] == "[UNK]"
    assert tokenizer.tokenize("##a") != ["##a"], "inner pieces are no special tokens of running text"


def test_ids_are_framed_cut_padded_and_masked() -> None:
    tokenizer = train_wordpiece(TEXTS, 200)
    ids, mask = encode_texts(tokenizer, ["sinus", "", TEXTS[1]], 8)
    assert ids.dtype == np.int32
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask.sum(1), [3, 2, 8])
    np.testing.assert_array_equal(ids[:, 0], [tokenizer.cls_token_id] * 3)
    assert ids[0, 2] == ids[1, 1] == ids[2, 7] == tokenizer.sep_token_id
    assert (ids[~mask] == tokenizer.pad_token_id).all()
    assert encode_texts(tokenizer, [], 8)[0].shape == (0, 8)


def test_transformers_reads_the_saved_folder_to_the_same_ids(tmp_path: Path) -> None:
    tokenizer = train_wordpiece(TEXTS, 200)
    encode_texts(tokenizer, TEXTS, 12)  # leaves its padding length in the tokenizer, which must not matter
    save(tokenizer, tmp_path)
    theirs = AutoTokenizer.from_pretrained(str(tmp_path))
    expected = theirs(list(TEXTS), padding="max_length", truncation=True, max_length=24)
    ids, mask = encode_texts(load_tokenizer(tmp_path), TEXTS, 24)
    np.testing.assert_array_equal(ids, expected["input_ids"])
    np.testing.assert_array_equal(mask, np.asarray(expected["attention_mask"], bool))
    np.testing.assert_array_equal(ids, encode_texts(tokenizer, TEXTS, 24)[0])
    assert fingerprint(load_tokenizer(tmp_path)) == fingerprint(tokenizer)


def test_fingerprints_tell_vocabularies_apart() -> None:
    assert fingerprint(train_wordpiece(TEXTS, 200)) != fingerprint(train_wordpiece(TEXTS[:3], 200))


def test_an_experiment_trains_or_loads(tmp_path: Path) -> None:
    trained = make_tokenizer(TokenizerSpec(vocab_size=200), TEXTS)
    save(trained, tmp_path)
    loaded = make_tokenizer(TokenizerSpec(source=str(tmp_path)), ())
    assert fingerprint(loaded) == fingerprint(trained)


def test_a_bare_vocabulary_file_is_read_and_not_ignored(tmp_path: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sinus", "rhythm", "##ic"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    ids, mask = encode_texts(load_tokenizer(tmp_path), ["Sinus rhythmic"], 6)
    np.testing.assert_array_equal(ids, [[2, 5, 6, 7, 3, 0]])
    np.testing.assert_array_equal(mask, [[True] * 5 + [False]])


@pytest.mark.parametrize("source", ["/no/such/folder", "../none", "a/b/c", ""])
def test_a_missing_folder_is_named(source: str) -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.json or vocab\.txt"):
        load_tokenizer(source)


def test_a_hub_name_without_network_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TokenizerError, match="offline: download it first and give the folder"):
        load_tokenizer("nobody-at-all/no-such-model")


def test_too_small_a_vocabulary_and_no_text_are_clear_errors() -> None:
    with pytest.raises(TokenizerError, match=r"vocab_size 64 is too small: \d+ characters alone need \d+"):
        train_wordpiece(TEXTS, 64)
    with pytest.raises(TokenizerError, match="no text to train"):
        train_wordpiece(["", " "], 64)


@pytest.mark.real_data
def test_the_published_bert_vocabulary(shared_data: Path) -> None:
    """Ids of bert-base-uncased as everyone knows them (Devlin et al. 2019): [CLS] 101, [SEP] 102, hello 7592."""
    tokenizer = load_tokenizer(shared_data / "bert_vocab" / "bert-base-uncased")
    assert len(tokenizer) == 30522
    ids, _ = encode_texts(tokenizer, ["Hello, world"], 6)
    np.testing.assert_array_equal(ids, [[101, 7592, 1010, 2088, 102, 0]])
