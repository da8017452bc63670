"""Report text as it comes from cohorts: cleaning, emptiness, language. The raw text always stays beside the result.

Two cleanings exist. `plain` is ours and removes what is not a finding: control characters, starred banners, signature
and "unconfirmed" lines, and the label codes that PTB-XL's editors appended to reports. `merl` is what MERL's released
preprocessing does, character for character, for runs that reproduce it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

from ecgclip_jax.text.statements import split_statements

CleaningStyle = Literal["plain", "merl"]
Language = Literal["en", "de", "sv", "unknown"]

# PTB-XL: codes with likelihoods appended by an editor ("… Edit: IMI 100, LVH 80 (IMI 100)"). They are the labels
# themselves; a text tower that reads them has seen the answer.
_APPENDED_LABELS = re.compile(r"\s*\bEdit:.*\Z", re.DOTALL)
_NOT_FINDINGS = re.compile(
    r"""
      \b4\.46(?:\s+u\w*(?:\s+b\w*)?)?\s*\Z   # PTB-XL's carts: their software version, and then "unconfirmed report",
    | \bunbestätigter\s+bericht              # … often cut off anywhere, since reports were stored in so many characters
    | \bunconfirmed(?:\s+(?:report|analysis|ecg|diagnosis))?\b(?:\s+-\s+md\s+must\s+review)?
    | \b(?:electronically\s+)?(?:confirmed|signed|reviewed)\s+by\b[^.;\n]*
    | \b(?:automated\s+analysis|computer\s+interpretation)\b
    | \btrace\s+only\s+requested\b
    | \bpat\.\s+uppgifter\s+saknas          # Swedish: patient details missing
    """,
    re.VERBOSE | re.IGNORECASE,
)
_STARRED_BANNER_MARKS = re.compile(r"\*{2,}|={2,}|-{3,}|_{3,}")
# An ü that was lost before publication: "f#r linkshypertrophie", "r-s #bergang" (the only two words so written).
_LOST_UMLAUT = re.compile(r"\bf#r\b|#bergang")
_PUNCTUATION_ALONE = re.compile(r"(?:(?<=\s)|^)[^\w\s]+(?:(?=\s)|$)")
_MEANINGFUL_ALONE = frozenset("&+-/<>=")
_INVISIBLE = frozenset({"Cc", "Cf", "Zl", "Zp"})
"""Unicode categories of control characters, format characters and line separators."""
_SPACES = re.compile(r"\s+")
_LETTER = re.compile(r"[^\W\d_]")


def _repair_characters(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    text = "".join(" " if unicodedata.category(c) in _INVISIBLE and c != "\n" else c for c in text)
    text = _LOST_UMLAUT.sub(lambda m: m.group().replace("#", "ü"), text)
    # Lower-cased by a tool that knew ASCII only ("mÄssige"): finish what it began.
    return text if re.search("[A-Z]", text) else text.lower()


def _findings_only(text: str) -> str:
    """Without what is not a finding; lines and spaces are as they were."""
    text = _repair_characters(_APPENDED_LABELS.sub("", text))
    text = _STARRED_BANNER_MARKS.sub(" ", _NOT_FINDINGS.sub(" ", text))
    return _PUNCTUATION_ALONE.sub(lambda m: m.group() if m.group() in _MEANINGFUL_ALONE else " ", text)


def _clean_plain(text: str) -> str:
    return _if_any_word(_SPACES.sub(" ", _findings_only(text)).strip())


def _if_any_word(text: str) -> str:
    return text if _LETTER.search(text) else ""


def _clean_merl(text: str) -> str:
    # The order of the strips, and that they take characters rather than prefixes, is the released notebook's.
    text = text.replace("EKG", "ECG").replace("ekg", "ecg")
    for characters in (" ***", "*** ", "***", "=-", "="):
        text = text.strip(characters)
    text = text.lower()
    if not text.split():
        return "empty"
    return text.replace("\n", " ").replace("\r", " ").replace("\t", " ") + "."


_CLEANERS: Mapping[CleaningStyle, Callable[[str], str]] = MappingProxyType({"plain": _clean_plain, "merl": _clean_merl})


def clean_report(text: str, style: CleaningStyle = "plain") -> str:
    """The report without what is not a finding.

    Args:
      text: one report as the cohort has it. Cohorts that keep statements in columns join them with ". " first, as
        MERL does.
      style: `plain` (ours; lower-cases only text that already is, gives "" where no finding is left) or `merl`
        (MERL's `pretrain/preprocess.ipynb`: lower case, a final full stop, "empty" for an empty report).
    """
    return _CLEANERS[style](text)


def report_statements(raw: str, clean: str) -> tuple[str, ...]:
    """The statements of a report whose raw text is `raw` and whose cleaned text is `clean`.

    Cleaning joins lines, which in machine-written reports are the statements. Where `clean` is the plain cleaning of
    `raw` the lines are therefore taken from `raw`; a report that was cleaned otherwise is split as it is.
    """
    lines = _findings_only(raw)
    return split_statements(lines if _if_any_word(_SPACES.sub(" ", lines).strip()) == clean else clean)


def report_flags(text: str) -> tuple[str, ...]:
    """What a build's audit says about a raw report: `report_empty`, or `report_boilerplate` if no finding is in it.

    `report_labels_removed` marks a report to which label codes had been appended.
    """
    if not text.strip():
        return ("report_empty",)
    flags = ("report_labels_removed",) if _APPENDED_LABELS.search(text) else ()
    return flags if clean_report(text) else (*flags, "report_boilerplate")


# Function words and ECG vocabulary that one of the three languages has and the others lack. Prefixes end with "*".
_WORDS: Mapping[Language, str] = {
    "en": "the of with and or are is to be due this may not no but by from sinus_rhythm rhythm wave waves trace "
    "branch bundle left right normal_ecg otherwise atrial ventricular premature contraction* fibrillation flutter "
    "axis deviation lead leads voltage* suggest* consistent possible probable interval prolonged inverted depress* "
    "elevat* infarct infarction ischaemi* ischemi* myocardial tachycardia bradycardia arrhythmia abnormalit* rate "
    "changes hypertrophy enlargement only pathology borderline old recent ecg",
    "de": "der die das und oder mit nicht kein keine auf bei nach für ist sind eine einer ein im zum sonst alter "
    "sinusrhythmus rhythmus lagetyp linkstyp rechtstyp normales grenzbefund neg abnorm abnormes abnormales infarkt "
    "vorhofflimmern vorhof* linkshypertrophie *schenkelblock ableitungen ischämie linksbelastung möglich "
    "wahrscheinlich verdacht extrasystole* extrasystolen ventrikuläre supraventrikuläre tachykard* bradykard* "
    "sinustachykardie sinusbradykardie sinusrythmus flach biphasisch llt niederspannung "
    "unspezifische* pathologisch* steiltyp senkung hebung schrittmacher grenzbefund verlängerung *störung* herz* "
    "kammer* überdrehter ueberdrehter arrhythmie sinistrocardiale",
    "sv": "och eller med inte ej för vid som är sinusrytm rytm vänster höger el-axel axel *skänkelblock "
    "förmaksflimmer förmaks* kammar* avvikande förändring sänkning höjning såsom ospecifik belastning myokardskada "
    "förlängd takykardi bradykardi arytmi normalt extrasystoli ischemi bör övervägas misstänkt äldre",
}


def _word_pattern(words: str) -> re.Pattern[str]:
    alternatives = "|".join(re.escape(w).replace(r"\*", r"\w*").replace("_", r"\s+") for w in words.split())
    return re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w-])")


_PATTERNS = {language: _word_pattern(words) for language, words in _WORDS.items()}


def guess_language(text: str) -> Language:
    """The language whose words stand most often in the report; `unknown` for none, or when two come out equal.

    Counts function words and ECG vocabulary; English, German and Swedish (PTB-XL has all three) are known.
    """
    text = _repair_characters(text).lower()
    counts = sorted(((len(p.findall(text)), language) for language, p in _PATTERNS.items()), reverse=True)
    (most, language), (second, _) = counts[0], counts[1]
    return language if most > second else "unknown"
