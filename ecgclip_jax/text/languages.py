"""Which language a report is written in, told from its words: reports are too short for a general guesser.

A word counts for a language if that language has it and the others lack it, be it a function word or ECG vocabulary.
PTB-XL holds English, German and Swedish side by side; Portuguese is what Brazilian cohorts write.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Literal

Language = Literal["en", "de", "sv", "pt", "unknown"]

# "*" stands for any letters, "_" for blanks.
_WORDS: Mapping[Language, str] = {
    "en": "the of with and or are is to be due this may not no but by from sinus_rhythm rhythm wave waves trace "
    "branch bundle left right normal_ecg otherwise atrial ventricular premature contraction* fibrillation flutter "
    "axis deviation lead leads voltage* suggest* consistent possible probable interval prolonged inverted depress* "
    "elevat* infarct infarction ischaemia ischaemic ischemia ischemic myocardial tachycardia bradycardia arrhythmia "
    "abnormalit* rate changes hypertrophy enlargement only pathology borderline old recent ecg acute pause baseline "
    "pacing paced pacemaker_rhythm effect poor marked nonspecific beats escape tracing repeat age complete "
    "incomplete pattern short heart degree heart strain",
    "de": "der die das und oder mit nicht kein keine auf bei nach für ist sind eine einer ein im zum sonst alter "
    "sinusrhythmus rhythmus lagetyp linkstyp rechtstyp normales grenzbefund neg abnorm abnormes abnormales infarkt "
    "vorhofflimmern vorhof* linkshypertrophie *schenkelblock ableitungen ischämie linksbelastung möglich "
    "wahrscheinlich verdacht extrasystole* extrasystolen ventrikuläre supraventrikuläre tachykard* bradykard* "
    "sinustachykardie sinusbradykardie sinusrythmus flach biphasisch llt niederspannung "
    "unspezifische* pathologisch* steiltyp senkung hebung schrittmacher* grenzbefund verlängerung *störung* herz* "
    "kammer* überdrehter ueberdrehter arrhythmie sinistrocardiale *gerecht* *rechte *infarkt *erregung* *zeit "
    "grades *auffällig* verlauf *verlauf gehäuft* *ungen zustand *hypertrophie *wand über *zacken *veränderung* "
    "regelrecht* verkürzt verbreitert befund *typ",
    "sv": "och eller med inte ej för vid som är sinusrytm *rytm vänster höger el-axel axel *skänkelblock *grenblock "
    "förmaksflimmer förmaks* kammar* avvikande förändring sänkning höjning såsom ospecifik belastning myokardskada "
    "förlängd *takykardi *bradykardi arytmi normalt extrasystoli ischemi* bör övervägas misstänkt äldre inga ingen "
    "inget säkr* tecken gammal *väggsinfarkt extraslag *slag ventrikulära supraventrikulära patologisk patologiskt "
    "frekvens graden första andra tredje lågt låga högt höga av i_extremitetsavledningar* *avledning*",
    "pt": "ritmo frequência bloqueio ramo direito esquerdo direita esquerda fibrilação atrial_com resposta alta baixa "
    "flutter_atrial sobrecarga eletrocardiograma ecg_normal limites normalidade extrassístole* desvio eixo alteraç* "
    "repolarização zona inativa bradicardia taquicardia hemibloqueio isquemia de do da dos das com não para e_do "
    "anterior_esquerdo divisão primeiro grau atrioventricular infarto segmento onda* *desnivelamento",
}


def _word_pattern(words: str) -> re.Pattern[str]:
    alternatives = "|".join(re.escape(w).replace(r"\*", r"\w*").replace("_", r"\s+") for w in words.split())
    return re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w-])")


_PATTERNS = {language: _word_pattern(words) for language, words in _WORDS.items()}


def guess_language(text: str) -> Language:
    """The language whose words stand most often in the report; `unknown` for none, or when two come out equal.

    Known are English, German, Swedish and Portuguese.
    """
    text = unicodedata.normalize("NFC", text).lower()
    counts = sorted(((len(p.findall(text)), language) for language, p in _PATTERNS.items()), reverse=True)
    (most, language), (second, _) = counts[0], counts[1]
    return language if most > second else "unknown"
