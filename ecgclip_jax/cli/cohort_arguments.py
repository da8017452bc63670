"""What `ecgclip prepare NAME` takes for every cohort: one class each, whose text is the command's help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Union

import tyro

from ecgclip_jax.cli.options import default_data_dir

IcdColumn = Literal["all_diag_all", "all_diag_hosp", "hosp_diag_hosp", "ed_diag_hosp", "ed_diag_ed"]
World = Literal["default", "strangers_reports", "unseen_targets", "device_linked"]


@dataclass
class _Common:
    data_dir: Path = field(default_factory=default_data_dir)
    """Where prepared cohorts lie ($ECGCLIP_DATA or ./data); the result is DATA_DIR/NAME/VERSION."""
    workers: int | None = None
    """Processes that convert ECGs; without it one per CPU, 0 works in this one. Never changes the result."""
    compression: Literal["zstd:1", "snappy", "uncompressed"] = "zstd:1"
    """Of the stored ECGs. The default is smallest, about 60 kB each; snappy takes a third more; uncompressed, twice the
    disk, is fastest to write and to read. Records are the same."""
    overwrite: bool = False
    """Replace a dataset that was built from another source or with other options."""
    shards: str | None = None
    """One job of a cluster: write only these shards, FIRST:STOP/OF such as 0:16/64, or one of OF such as 3/64. Jobs
    share the data directory; any number may run at once, and one that died is run again."""
    merge: bool = False
    """Put together what the jobs have written, after counting it; says which ranges are missing."""
    beam: str | None = None
    """Build in an Apache Beam pipeline (extra [beam]) with these arguments, as one text: "--runner=FlinkRunner …"."""


@dataclass
class SyntheticEcg(_Common):
    """Make the synthetic cohort: hospitals A and B to train and test on, hospital C never trained on.

    Needs no data. An interrupted run goes on where it stopped; the same options give the same bytes.
    """

    size: int = 8000
    """About how many ECGs, over all splits; patients have one to three each."""
    seed: int = 0
    """Another seed gives other patients of the same world."""
    world: World = "default"
    """A null world in which claims must fail: reports about strangers, targets that no waveform shows, or a disease
    tied to a device in training and reversed at hospital C. It gets a name of its own (synthetic_ecg_WORLD)."""


@dataclass
class SyntheticHospitals(_Common):
    """Make ten synthetic hospitals with echo, rare diseases and follow-up: one to train on, nine external ones.

    Needs no data. An interrupted run goes on where it stopped; the same options give the same bytes.
    """

    size: int = 20_000
    """About how many ECGs, over all splits; patients have one to five each."""
    seed: int | None = None
    """Another seed gives other patients of the same world; without it the frozen world's own."""
    sampling: Literal["case_enriched", "source"] = "case_enriched"
    """Patients with rare conditions more often, with sampling weights, or everybody."""
    world: Literal["default", "unseen_targets", "device_linked"] = "default"
    """A null world in which claims must fail: targets that no waveform shows, or a reduced ejection fraction tied to a
    device inside and reversed outside. It gets a name of its own (synthetic_hospitals_WORLD)."""


@dataclass
class _FromFiles(_Common):
    source: Path | None = None
    """The cohort's folder as its publisher lays it out; without it an open PhysioNet project is downloaded, every file
    checked against its SHA-256."""
    splits_from: Path | None = None
    """A folder with the id lists of an earlier build (splits/): its splits instead of the cohort's own or ours."""


@dataclass
class PtbXl(_FromFiles):
    """Prepare PTB-XL 1.0.3 (PhysioNet, CC BY 4.0): folds 1-8 train, 9 validation, 10 test.

    Without --source it is downloaded (2.6 GB at 500 Hz), every file checked against PhysioNet's SHA-256. An
    interrupted download or build goes on where it stopped. Odd records become rows with reasons in audit.parquet.
    """

    rate_hz: Literal[500, 100] = 500
    """Which published form to read; stored records are at 500 Hz either way."""
    report_cleaning: Literal["ptb_xl", "plain", "merl"] = "ptb_xl"
    """What report_clean holds: ours with abbreviations written out or not, or MERL's published preprocessing.
    report_raw is verbatim in all."""


@dataclass
class MimicIvEcg(_FromFiles):
    """Prepare MIMIC-IV-ECG 1.0 (PhysioNet, open, ODbL; 90 GB, never downloaded from here).

    --source names the folder with record_list.csv, machine_measurements.csv and files. Tables of MIMIC-IV-ECG-Ext-ICD,
    MIMIC-IV (patients.csv) and MIMIC-IV-ECHO that lie there too are joined by id; the result is then credentialed.
    """

    machine_measurements: bool = True
    """Whether machine_measurements.csv must be there; the demo 0.1 has none."""
    icd_column: IcdColumn = "all_diag_all"
    """Which diagnoses of Ext-ICD become labels."""
    echo_window_days: float = 30.0
    """How far the echocardiogram that gives the LVEF may lie from the ECG."""
    report_cleaning: Literal["mimic_iv_ecg", "plain", "merl"] = "mimic_iv_ecg"
    """What report_clean holds: ours with abbreviations written out or not, or MERL's published preprocessing."""


@dataclass
class MimicIvEcgEcho(MimicIvEcg):
    """Prepare MIMIC-IV-ECG with echo targets of MIMIC-IV-ECHO (credentialed; neither is downloaded from here).

    --source names MIMIC-IV-ECG's folder with structured-measurement.csv[.gz] of MIMIC-IV-ECHO in it. ECGs without an
    echocardiogram near are dropped and counted.
    """

    pairing: Literal["nearest_ecg", "every_ecg"] = "nearest_ecg"
    """Of each echo the nearest ECG alone, or all ECGs within the window, each with the echo nearest to it."""
    ecg_first: bool = False
    """Only ECGs at the time of the echo or before it, as EchoNext has them (with a window of 365 days)."""


@dataclass
class Heedb(_FromFiles):
    """Prepare HEEDB 5.0 (bdsp.io, credentialed; never downloaded from here): eleven million ECGs, 12SL statements.

    --source names the folder with I0001 and I0006 (metadata, 12SL_diagnoses, WFDB), or that of version 2.0. The
    metadata of all of it take tens of GB of memory: take a hospital or some years at a time.
    """

    hospital: Literal["all", "I0001", "I0006"] = "all"
    """I0001 is Massachusetts General, I0006 Emory."""
    first_year: int = 0
    """From this year of acquisition on, as the records' folders state it."""
    last_year: int = 9999
    """Up to this year, included."""
    labels_from: Literal["physician", "software", "v24", "none"] = "physician"
    """Whose 12SL statements become labels and report: the physician's over-reads, the software's of the time of
    acquisition, those of 12SL v24, or nobody's."""


@dataclass
class Challenge2021(_FromFiles):
    """Prepare the Challenge 2021's training set (PhysioNet, CC BY 4.0): eight databases, SNOMED CT codes.

    --source names the folder that holds training/<database>/g<k>/. Splits are ours, stratified over the codes.
    """

    database: Literal[
        "all",
        "chapman_shaoxing",
        "cpsc_2018",
        "cpsc_2018_extra",
        "georgia",
        "ningbo",
        "ptb",
        "ptb-xl",
        "st_petersburg_incart",
    ] = "all"
    """One database on its own becomes challenge2021_DATABASE."""


@dataclass
class ChapmanShaoxingNingbo(_FromFiles):
    """Prepare Chapman-Shaoxing-Ningbo 1.0.0 (PhysioNet ecg-arrhythmia, CC BY 4.0): SNOMED CT codes, splits ours."""


@dataclass
class Cpsc2018(_FromFiles):
    """Prepare CPSC 2018's training set: native (REFERENCE.csv and MATLAB structs) or as the Challenge 2021 has it.

    Which of the two is seen from the folder; without --source the Challenge's form is downloaded.
    """


@dataclass
class Cpsc2021(_FromFiles):
    """Prepare CPSC 2021's training set (PhysioNet, CC BY 4.0): two leads, beats and rhythms, splits ours by patient."""


@dataclass
class Ptb(_FromFiles):
    """Prepare the PTB Diagnostic ECG Database 1.0.0 (PhysioNet, ODC-BY): clinical summaries, splits ours by patient."""


@dataclass
class Ludb(_FromFiles):
    """Prepare LUDB 1.0.1 (PhysioNet, ODC-BY): wave boundaries in every lead."""


@dataclass
class Sph(_FromFiles):
    """Prepare SPH (figshare, CC BY 4.0): AHA statements, splits ours by patient.

    --source names the folder with metadata.csv and records/*.h5; it is not downloaded from here.
    """


@dataclass
class Code15(_FromFiles):
    """Prepare CODE-15 % (Zenodo, CC BY 4.0): six abnormalities, mortality, splits ours by patient.

    --source names the folder with exams.csv and the unpacked exams_part*.hdf5; it is not downloaded from here. Some
    parts are enough: rows of the others are dropped and counted.
    """


@dataclass
class SamiTrop(_FromFiles):
    """Prepare SaMi-Trop (Zenodo, CC BY 4.0): Chagas cardiomyopathy with mortality, splits ours.

    --source names the folder with exams.csv and the unpacked exams.hdf5; it is not downloaded from here.
    """


@dataclass
class Cinc2017(_FromFiles):
    """Prepare the Challenge 2017's training set (PhysioNet, ODC-BY): hand-held lead I, four classes, splits ours.

    --source names the folder with REFERENCE-v3.csv and the unpacked training2017; it is not downloaded from here.
    """


@dataclass
class Mitdb(_FromFiles):
    """Prepare the MIT-BIH Arrhythmia Database 1.0.0 (PhysioNet, ODC-BY): two leads, every beat, splits ours."""

    modified_ii_as_ii: bool = False
    """Store the modified limb lead II (MLII) as lead II, for single-lead tasks; otherwise it is left out."""


@dataclass
class Icentia11k(_FromFiles):
    """Prepare Icentia11k 1.0 (PhysioNet, open; over 1 TB, not downloaded from here): days of one lead.

    --source names the folder that holds p00/p00000/p00000_s00.hea and so on. All windows of all segments are up to 231
    million: thin them.
    """

    windows_per_segment: int = 0
    """How many 10 s windows of each 70 min segment are kept, evenly spread; 0 keeps all."""
    segments_per_patient: int = 0
    """How many of each patient's segments are read, from the first on; 0 reads all (up to 50)."""
    stored_as: Literal["I", "II"] = "I"
    """As which lead the chest-worn device's single lead is stored."""


@dataclass
class EchoNext(_FromFiles):
    """Prepare EchoNext 1.1.0 (PhysioNet, restricted; never downloaded from here): findings of an echocardiogram.

    --source names the folder with echonext_metadata_100k.csv and EchoNext_<split>_waveforms.npy; the authors'
    waveform_normalization_params.json, which gives the z-scores a unit, must lie there too.
    """


@dataclass
class TableFolder(_FromFiles):
    """Prepare a cohort of your own: ECG files and a table (CSV or Parquet), declared by cohort.yaml in --source."""


@dataclass
class WfdbFolder(_FromFiles):
    """Prepare a cohort of your own: WFDB records with comments, declared by cohort.yaml in --source."""


ARGUMENTS: Mapping[str, type[_Common]] = MappingProxyType(
    {
        "synthetic_ecg": SyntheticEcg,
        "synthetic_hospitals": SyntheticHospitals,
        "ptb_xl": PtbXl,
        "mimic_iv_ecg": MimicIvEcg,
        "mimic_iv_ecg_echo": MimicIvEcgEcho,
        "heedb": Heedb,
        "challenge2021": Challenge2021,
        "chapman_shaoxing_ningbo": ChapmanShaoxingNingbo,
        "cpsc2018": Cpsc2018,
        "cpsc2021": Cpsc2021,
        "ptb": Ptb,
        "ludb": Ludb,
        "sph": Sph,
        "code15": Code15,
        "sami_trop": SamiTrop,
        "cinc2017": Cinc2017,
        "mitdb": Mitdb,
        "icentia11k": Icentia11k,
        "echonext": EchoNext,
        "table_folder": TableFolder,
        "wfdb_folder": WfdbFolder,
    }
)
"""By the cohort's name."""


def any_cohort() -> Any:
    """The type from which tyro makes one subcommand per cohort."""
    commands = (Annotated[of, tyro.conf.subcommand(name, prefix_name=False)] for name, of in ARGUMENTS.items())
    return Union[tuple(commands)]  # noqa: UP007  (made at run time)


def name_of(arguments: _Common) -> str:
    """The cohort whose arguments these are."""
    return next(name for name, of in ARGUMENTS.items() if type(arguments) is of)
