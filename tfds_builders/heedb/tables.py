"""HEEDB's tables as one row per ECG: two layouts, columns found by name, statements by code.

No file of the cohort was at hand. Names of files and columns are those that public code reads (see the README); where
a table has others, the refusal lists what was found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Final, Literal

import pyarrow as pa
import pyarrow.compute as pc

from tfds_builders.common.cohort import BuildError
from tfds_builders.common.joins import add_columns, joint_sha256
from tfds_builders.common.metadata import ROW_NUMBER, MetadataTable, read_csv

Hospital = Literal["I0001", "I0006"]
HOSPITALS: Final[tuple[Hospital, ...]] = ("I0001", "I0006")
LabelSource = Literal["physician", "software", "v24", "none"]

RECORD, HOSPITAL, FOLDER, CODES, DUPLICATED = (
    "heedb_record",
    "heedb_hospital",
    "heedb_folder",
    "heedb_codes",
    "heedb_copy",
)
"""Columns that every row gets: the record's path below its folder, hospital, folder with the signals, codes of its
labels, and whether the publisher lists it as a duplicate."""
FILE_COLUMNS: Final = ("FileName", "file_name", "file_source")
PATIENT_COLUMNS: Final = ("BDSPPatientID", "PatientID")
SEX_COLUMNS: Final = ("SexDSC", "Sex", "Gender")
AGE_UNITS_PER_YEAR: Final[Mapping[str, float]] = {"AgeAtAcquisition": 365.2425, "Age": 1.0}
"""Days in the tables of 3.0 and later, years in those of 2.0: so public code reads them."""

_METADATA, _DICTIONARY = "metadata/metadata.csv", "12SL_diagnoses/diagnoses_dictionary.csv"
_CODE_TABLES: Final[Mapping[LabelSource, tuple[str, str]]] = {
    "physician": ("12SL_diagnoses/diagnoses_acquisition.csv", "codes_physician"),
    "software": ("12SL_diagnoses/diagnoses_acquisition.csv", "codes_software"),
    "v24": ("12SL_diagnoses/diagnoses_v24.csv", "codes"),
}
_OLD_METADATA, _OLD_CODES, _DUPLICATED = "demographics_ECG.csv", "ECG_Interpretations.psv", "duplicated.csv"
_WHERE = "https://bdsp.io/content/heedb/ (credentialed access and a signed agreement)"


@dataclass(frozen=True)
class Selection:
    """Which part of the cohort is wanted."""

    hospitals: tuple[Hospital, ...] = HOSPITALS
    first_year: int = 0
    last_year: int = 9999
    labels_from: LabelSource = "physician"

    def takes_year(self, year: int | None) -> bool:
        """Whether ECGs of a year are wanted; those of no stated year are, unless a year was asked for."""
        return self.first_year <= 0 if year is None else self.first_year <= year <= self.last_year


def joined(source: Path, selection: Selection) -> MetadataTable:
    """All rows of the selection with the columns above.

    Raises:
      BuildError: neither layout lies in `source`, a table or a column is missing, or an ECG stands in one twice.
    """
    parts, sums = list[pa.Table](), list[str]()
    malformed: list[tuple[int, str]] = []
    for table, of_part, hashes in _parts(source, selection):
        parts.append(_of_years(table, selection))
        malformed += of_part
        sums += hashes
    table = pa.concat_tables(parts, promote_options="default")
    table = pa.table({name: pc.fill_null(table[name], "") for name in table.column_names})
    table = table.add_column(0, ROW_NUMBER, pa.array(range(table.num_rows), pa.int64()))
    defects = tuple((table.num_rows + i, defect) for i, (_, defect) in enumerate(malformed))
    return MetadataTable(table, defects, joint_sha256(sums))


_Part = tuple[pa.Table, tuple[tuple[int, str], ...], list[str]]
"""Rows, malformed rows, and the hashes of the files that they come from."""


def _parts(source: Path, selection: Selection) -> Iterator[_Part]:
    """What each hospital of the layout that lies in `source` has."""
    roots = [root for root in (source, source / "ECG") if any((root / h / _METADATA).is_file() for h in HOSPITALS)]
    if roots:
        # A hospital that was not asked for may be absent; one that was by name may not.
        here = [h for h in selection.hospitals if len(selection.hospitals) == 1 or (roots[0] / h / _METADATA).is_file()]
        yield from (_hospital(source, roots[0] / h, h, selection.labels_from) for h in here)
    elif (source / "Metadata" / _OLD_METADATA).is_file():
        yield _version_2(source, selection.labels_from)
    else:
        found = ", ".join(sorted(path.name for path in source.iterdir())[:20]) or "nothing"
        raise BuildError(
            f"{source}: expected HEEDB as published from 3.0 on (I0001/{_METADATA}, I0006/{_METADATA}, beside them "
            f"12SL_diagnoses and WFDB; an ECG folder above them may stay) or in 2.0 (Metadata/{_OLD_METADATA}, "
            f"ECG/WFDB), found {found}. It is never downloaded from here; ask for it at {_WHERE}"
        )


def _hospital(source: Path, folder: Path, hospital: Hospital, labels_from: LabelSource) -> _Part:
    """One hospital's tables, as published from 3.0 on."""
    metadata = read_csv(folder / _METADATA, ())
    table = _with_place(metadata, folder / _METADATA, hospital, (folder / "WFDB").relative_to(source).as_posix())
    sums, codes = [metadata.sha256], [""] * table.num_rows
    if labels_from != "none":
        name, column = _CODE_TABLES[labels_from]
        codes, sha256 = _codes_of(table, folder / name, column)
        sums += [sha256, _dictionary_table(folder).sha256]
    table = table.append_column(CODES, pa.array(codes, pa.string()))
    lists = (folder / "metadata" / _DUPLICATED, source / "Metadata" / _DUPLICATED)
    table, list_sums = _with_duplicates(table, [path for path in lists if path.is_file()])
    return table, metadata.malformed, [*sums, *list_sums]


def _dictionary_table(hospital: Path) -> MetadataTable:
    return read_csv(hospital / _DICTIONARY, ("codes", "diagnoses"))


@lru_cache(maxsize=4)
def dictionary(hospital: Path) -> Mapping[str, str]:
    """12SL code → statement, of a hospital's folder; empty for 2.0, which has none."""
    if not (hospital / _DICTIONARY).is_file():
        return {}
    table = _dictionary_table(hospital).table
    codes, words = ([cell.strip() for cell in table[name].to_pylist()] for name in ("codes", "diagnoses"))
    return dict(zip(codes, words, strict=True))


def _version_2(source: Path, labels_from: LabelSource) -> _Part:
    """The tables of 2.0: one hospital, numeric codes without a dictionary, and a list of duplicates."""
    if labels_from not in ("none", "software"):
        raise BuildError(
            f"{source / 'Metadata'} is HEEDB 2.0, which has the machine's codes only, found labels_from="
            f"{labels_from!r}: give --labels-from software or none, or get version 5.0 from {_WHERE}"
        )
    folder = source / "Metadata"
    metadata = read_csv(folder / _OLD_METADATA, ())
    table = _with_place(metadata, folder / _OLD_METADATA, "I0001", "ECG/WFDB")
    sums, codes = [metadata.sha256], [""] * table.num_rows
    if labels_from == "software":
        codes, sha256 = _codes_of(table, folder / _OLD_CODES, "diagnostic_codes", delimiter="|")
        sums.append(sha256)
    table = table.append_column(CODES, pa.array(codes, pa.string()))
    if not (folder / _DUPLICATED).is_file():
        raise BuildError(f"{folder} lacks {_DUPLICATED}, the list of ECGs that are there twice; download it, too")
    table, list_sums = _with_duplicates(table, [folder / _DUPLICATED])
    return table, metadata.malformed, [*sums, *list_sums]


def _with_place(metadata: MetadataTable, path: Path, hospital: Hospital, folder: str) -> pa.Table:
    """The metadata with every row's record, hospital and folder; its own numbering goes."""
    _column(metadata.table, PATIENT_COLUMNS, path)
    records = [record_of(cell) for cell in metadata.table[_column(metadata.table, FILE_COLUMNS, path)].to_pylist()]
    table = metadata.table.drop_columns([ROW_NUMBER]).append_column(RECORD, pa.array(records, pa.string()))
    for name, value in ((HOSPITAL, hospital), (FOLDER, folder)):
        table = table.append_column(name, pa.array([value] * table.num_rows, pa.string()))
    return table


def _codes_of(table: pa.Table, path: Path, column: str, delimiter: str = ",") -> tuple[list[str], str]:
    """The codes of every row of `table`, by the file's name alone, as tables differ in how they write its folder."""
    other = read_csv(path, (column,), delimiter)
    names = [_name(cell) for cell in other.table[_column(other.table, FILE_COLUMNS, path)].to_pylist()]
    keyed = pa.table({"name": pa.array(names, pa.string()), CODES: other.table[column]})
    keyed = keyed.filter(pc.not_equal(keyed["name"], ""))
    mine = pa.table({"name": pa.array([_name(cell) for cell in table[RECORD].to_pylist()], pa.string())})
    return add_columns(mine, keyed, "name", [CODES], path.name)[CODES].to_pylist(), other.sha256


def _with_duplicates(table: pa.Table, lists: Sequence[Path]) -> tuple[pa.Table, list[str]]:
    copies, sums = set[str](), []
    for path in lists:
        listed = read_csv(path, ())
        copies |= {_name(cell) for cell in listed.table[_column(listed.table, FILE_COLUMNS, path)].to_pylist()}
        sums.append(listed.sha256)
    marks = ["yes" if _name(record) in copies else "" for record in table[RECORD].to_pylist()]
    return table.append_column(DUPLICATED, pa.array(marks, pa.string())), sums


def _of_years(table: pa.Table, selection: Selection) -> pa.Table:
    wanted = [selection.takes_year(year_of(record)) for record in table[RECORD].to_pylist()]
    return table.filter(pa.array(wanted, pa.bool_()))


def _column(table: pa.Table, names: Sequence[str], path: Path) -> str:
    """The first of `names` that the table has, case aside.

    Raises:
      BuildError: it has none of them; it lists those that it has.
    """
    there: dict[str, str] = {name.lower(): name for name in reversed(table.column_names)}
    found = next((there[name.lower()] for name in names if name.lower() in there), None)
    if found is None:
        columns = ", ".join(name for name in table.column_names if name != ROW_NUMBER)
        raise BuildError(
            f"{path.name}: expected a column {' or '.join(names)}, found {columns}. Is it HEEDB's own, unedited table?"
        )
    return found


def record_of(file_name: str) -> str:
    """A record's path below its WFDB folder, as `S0001/1987/de_1`: tables write `./…`, `/…`, `WFDB/…`, `….hea` with or
    without a line break.
    """
    name = file_name.strip().removesuffix(".hea")
    while name.startswith(("./", "/")):
        name = name.removeprefix(".").removeprefix("/")
    return name.removeprefix("WFDB/")


def _name(path: str) -> str:
    return PurePosixPath(record_of(path)).name


def year_of(record: str) -> int | None:
    """The year that stands in a record's path as a folder; None if there is none."""
    years = (part for part in PurePosixPath(record).parts[:-1] if len(part) == 4 and part.isdecimal())
    return next((int(year) for year in years), None)
