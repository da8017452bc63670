"""Who trains and who tests, where a cohort's authors do not say: by patient, by label, the same for ever.

Official splits pass through a builder unchanged; `stratified_splits` is for cohorts that have none. What was decided
is frozen as lists of record ids with their SHA-256 beside the data (`write_id_lists`), and few-shot subsets of the
training split are drawn once, here, so that every paper's "1 %" is the same patients.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ecgclip_jax.spec.few_labels import drawn_persons, person
from tfds_builders.common.cohort import BuildError, SplitRule

SPLITS_FOLDER: Final = "splits"
SUMS_FILE: Final = "SHA256SUMS.txt"
FEW_SHOT_SHARES: Final = (0.01, 0.1)
"""Shares of the training patients in the saved subsets, each within the next."""


DEFAULT_SHARES: Final[Mapping[str, float]] = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""Our choice; PTB-XL's authors made theirs so."""
SHARES_TO_TRAIN_ON: Final[Mapping[str, float]] = {"train": 0.96, "validation": 0.02, "test": 0.02}
"""Of a cohort that is there to train on: few patients are enough to choose and test by."""


@dataclass(frozen=True, slots=True)
class Stratified:
    """The outcome of `stratified_splits`."""

    split_of: Mapping[str, str]
    """Patient → split."""
    rule: SplitRule


def stratified_splits(
    labels: Mapping[str, Collection[str]], shares: Mapping[str, float] = DEFAULT_SHARES, seed: int = 0
) -> Stratified:
    """Splits patients so that every label has about its share of patients in every split, and one at least.

    Iterative stratification (Sechidis et al. 2011, algorithm 1), its random draws replaced by a hash of seed and
    patient, so that neither the order of the source nor a library's generator decides. It takes the labels from the
    rarest on; among the rarest label's patients the next goes where most positives are still wanted. A split that a
    label left empty then gets one patient of it, if some other split can spare him.

    Args:
        labels: patient → codes of all his records.
        shares: split → share of the patients; they are scaled to add up to 1.
        seed: another seed, another draw.

    Raises:
        BuildError: no split, or a share that is not positive.
    """
    if not shares or min(shares.values()) <= 0:
        raise BuildError(f"shares of the splits: expected positive numbers, found {dict(shares)}")
    names, total = tuple(shares), sum(shares.values())
    scaled = [shares[name] / total for name in names]
    patients = sorted(labels, key=lambda patient: _rank(seed, patient))
    codes = {patient: tuple(sorted(set(labels[patient]))) for patient in patients}
    split_of = _iteratively(patients, codes, scaled)
    scarce = _one_positive_each(split_of, codes, len(names))
    rule = SplitRule(
        "stratified",
        f"{len(patients)} patients by {len({c for of in codes.values() for c in of})} labels (Sechidis et al. 2011)",
        seed,
        dict(zip(names, scaled, strict=True)),
        scarce,
    )
    return Stratified({patient: names[split] for patient, split in split_of.items()}, rule)


def _rank(seed: int, patient: str) -> bytes:
    return hashlib.sha256(f"{seed}\x1f{patient}".encode()).digest()


def _iteratively(
    patients: Sequence[str], codes: Mapping[str, tuple[str, ...]], shares: Sequence[float]
) -> dict[str, int]:
    """Patient → number of his split."""
    members: dict[str, list[str]] = {}
    for patient in patients:
        for code in codes[patient]:
            members.setdefault(code, []).append(patient)
    left = {code: len(of_code) for code, of_code in members.items()}
    wanted = {code: [share * n for share in shares] for code, n in left.items()}
    room = [share * len(patients) for share in shares]
    queue = [(n, code) for code, n in left.items()]
    heapq.heapify(queue)
    split_of: dict[str, int] = {}

    def put(patient: str, code: str | None) -> None:
        want = wanted[code] if code else room
        split = max(range(len(shares)), key=lambda s: (want[s], room[s], -s))
        split_of[patient] = split
        room[split] -= 1
        for other in codes[patient]:
            wanted[other][split] -= 1
            left[other] -= 1
            heapq.heappush(queue, (left[other], other))

    while queue:
        n, code = heapq.heappop(queue)
        if n != left[code] or not n:  # an entry from before some of its patients were put elsewhere
            continue
        for patient in members[code]:
            if patient not in split_of:
                put(patient, code)
    for patient in patients:
        if patient not in split_of:
            put(patient, None)
    return split_of


def _one_positive_each(
    split_of: dict[str, int], codes: Mapping[str, tuple[str, ...]], n_splits: int
) -> tuple[str, ...]:
    """Moves single patients so that every label that can has a positive in every split; returns those that cannot."""
    counts = [Counter[str]() for _ in range(n_splits)]
    for patient, split in split_of.items():
        counts[split].update(codes[patient])
    totals = sum(counts, Counter[str]())
    members: dict[str, list[str]] = {}
    for patient in split_of:
        for code in codes[patient]:
            members.setdefault(code, []).append(patient)
    for code in sorted(totals, key=lambda c: (totals[c], c)):
        # From the last split on: of two positives one learns and one tests.
        for empty in (s for s in reversed(range(n_splits)) if not counts[s][code]):
            for patient in members[code]:
                giver = split_of[patient]
                if all(counts[giver][other] > 1 for other in codes[patient]):
                    split_of[patient] = empty
                    counts[giver].subtract(codes[patient])
                    counts[empty].update(codes[patient])
                    break
    return tuple(sorted(code for code in totals if not all(of_split[code] for of_split in counts)))


def few_shot_subsets(
    patient_of: Sequence[tuple[str, str]], shares: Sequence[float] = FEW_SHOT_SHARES, seed: int = 0
) -> dict[float, list[str]]:
    """Nested subsets of whole patients.

    Args:
        patient_of: record id and patient id of every training record, in order; a record whose patient is unknown
            (an empty id) is a patient of its own.
        shares: share of the patients in each subset.
        seed: another seed, another draw.

    Returns:
        By share: record ids, in the order given. Every subset has at least one patient.
    """
    chosen = drawn_persons({person(*pair) for pair in patient_of}, shares, seed)
    return {
        share: list(dict.fromkeys(record for record, patient in patient_of if person(record, patient) in of_share))
        for share, of_share in chosen.items()
    }


def few_shot_name(share: float) -> str:
    """`train-1pct`: the list's name."""
    return f"train-{share * 100:g}pct"


def write_id_lists(folder: Path, lists: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Writes `splits/<name>.txt`, one record id per line, and `splits/SHA256SUMS.txt` over them; returns the hashes.

    Raises:
        BuildError: a record id with a line break in it.
    """
    target = folder / SPLITS_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    sums: dict[str, str] = {}
    for name, ids in lists.items():
        ordered = list(dict.fromkeys(ids))
        if broken := next((i for i in ordered if not i or i.splitlines() != [i]), None):
            raise BuildError(f"record id {broken!r}: expected one line of text")
        content = "".join(f"{record_id}\n" for record_id in ordered).encode()
        (target / f"{name}.txt").write_bytes(content)
        sums[name] = hashlib.sha256(content).hexdigest()
    (target / SUMS_FILE).write_text("".join(f"{sha256}  {name}.txt\n" for name, sha256 in sums.items()))
    return sums


def read_id_lists(folder: Path) -> dict[str, tuple[str, ...]]:
    """The lists that `write_id_lists` wrote, by name; `folder` is the dataset's or the `splits` folder itself.

    Raises:
        BuildError: no lists, or one that was changed since.
    """
    source = folder if (folder / SUMS_FILE).is_file() else folder / SPLITS_FOLDER
    if not (source / SUMS_FILE).is_file():
        raise BuildError(f"{folder}: expected lists of record ids (splits/{SUMS_FILE}), found none")
    lists: dict[str, tuple[str, ...]] = {}
    for line in (source / SUMS_FILE).read_text().splitlines():
        sha256, _, name = line.partition("  ")
        path = source / Path(name).name
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BuildError(
                f"{path}: expected the list of SHA-256 {sha256[:16]}…, found another; a frozen split is never edited: "
                "take the lists from where they were published, or build the cohort anew"
            )
        lists[path.stem] = tuple(content.decode().splitlines())
    return lists
