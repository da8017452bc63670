"""The classifier behind the leakage gauge: logistic regression on words, scored in one fold or asked for its words.

Apart from the gauge because scikit-learn takes seconds to import, and most builds have nobody to tell.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.multiclass import OneVsRestClassifier

FOLDS = 5
_TELLING = 8
_MIN_PATIENTS_PER_TERM = 10
"""A term of fewer patients is never shown: cards of cohorts that are not open suppress counts under ten."""


def cross_validated(
    text: np.ndarray, label: np.ndarray, group: Int[np.ndarray, " texts"], seed: int
) -> Float[np.ndarray, "folds 3"]:
    """Accuracy, that of the majority class, and AUROC in each fold; a group is in one fold only."""
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    return np.asarray([_fold(text, label, train, test) for train, test in folds.split(text, label, group)])


def _fold(
    text: np.ndarray, label: np.ndarray, train: Int[np.ndarray, " train"], test: Int[np.ndarray, " test"]
) -> tuple[float, float, float]:
    """Accuracy, that of the majority class, and AUROC in one fold."""
    vectorizer, model = _vectorizer(), _classifier()
    model.fit(vectorizer.fit_transform(text[train]), label[train])
    probability = model.predict_proba(vectorizer.transform(text[test]))
    classes, counts = np.unique(label[train], return_counts=True)
    accuracy = np.mean(model.classes_[probability.argmax(axis=1)] == label[test])
    return (
        float(accuracy),
        float(np.mean(label[test] == classes[counts.argmax()])),
        _auroc(label[test], probability, model.classes_),
    )


def _auroc(label: np.ndarray, probability: Float[np.ndarray, "test classes"], classes: np.ndarray) -> float:
    """Mean over the classes that this fold has and lacks."""
    truth = label[:, None] == classes[None, :]
    told = [k for k in range(len(classes)) if 0 < truth[:, k].sum() < len(label)]
    return float(np.mean([roc_auc_score(truth[:, k], probability[:, k]) for k in told])) if told else float("nan")


def telling_terms(text: np.ndarray, label: np.ndarray, group: Int[np.ndarray, " texts"]) -> tuple[str, ...]:
    """Terms with the largest weights, most telling first."""
    vectorizer, model = _vectorizer(), _classifier()
    model.fit(vectorizer.fit_transform(text), label)
    weights = np.concatenate([one.coef_ for one in model.estimators_])
    present: csr_matrix = vectorizer.transform(text).sign()
    by_patient = np.asarray(
        csr_matrix((np.ones(len(group)), (group, np.arange(len(group))))).dot(present).sign().sum(0)
    )
    shown = np.where(by_patient.ravel() >= _MIN_PATIENTS_PER_TERM, np.abs(weights).max(axis=0), 0.0)
    strongest = np.argsort(-shown, kind="stable")[:_TELLING]
    return tuple(str(vectorizer.get_feature_names_out()[k]) for k in strongest if shown[k] > 0)


def _vectorizer() -> TfidfVectorizer:
    # Every run of non-blanks is a word: punctuation and abbreviations are a hospital's habits.
    return TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", sublinear_tf=True, max_features=20_000)


def _classifier() -> OneVsRestClassifier:
    # liblinear: on sparse words a hundred times as fast as the default solver.
    return OneVsRestClassifier(LogisticRegression(C=10.0, solver="liblinear"))
