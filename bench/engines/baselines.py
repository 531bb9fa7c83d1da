"""The baseline without a transformer: character n-grams, TF-IDF and logistic regression.

Character n-grams are the strong classical choice for Korean, whose words inflect and whose
reviews skip spaces. Stored as JSON and ``.npz`` without pickle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finetune.core.errors import FolderError
from finetune.core.files import read_json, write_text
from finetune.core.preparation import DEFAULT, Preparation

SCHEMA = "kotune.tfidf/1"
SETTINGS: dict[str, Any] = {"analyzer": "char", "ngram_range": (1, 4), "sublinear_tf": True}
MIN_DOCUMENTS = 2  # an n-gram of one review says nothing of the next
INVERSE_PENALTY = 4.0  # of 1, 4, 10 the best on held-out NSMC at 2,000 and at 20,000 rows


@dataclass(frozen=True)
class Tfidf:
    """A fitted baseline; ``weights`` (1 or classes, n-grams), ``bias`` (1 or classes)."""

    vectorizer: Any
    weights: np.ndarray
    bias: np.ndarray
    preparation: Preparation

    def predict(self, texts: Sequence[str]) -> np.ndarray:
        """Class ids (texts,), int64."""
        features = self.vectorizer.transform(self.preparation.many(texts))
        scores = features @ self.weights.T + self.bias
        if scores.shape[1] == 1:
            return (scores[:, 0] > 0).astype(np.int64)
        return scores.argmax(axis=1)


def fit_tfidf(
    texts: Sequence[str],
    labels: Sequence[int],
    *,
    seed: int = 0,
    preparation: Preparation = DEFAULT,
) -> Tfidf:
    """Fit on training rows; every class id of 0 … k-1 must occur in ``labels``."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    min_documents = MIN_DOCUMENTS if len(texts) >= 1000 else 1
    vectorizer = TfidfVectorizer(**SETTINGS, min_df=min_documents)
    features = vectorizer.fit_transform(preparation.many(texts))
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1000, random_state=seed)
    model.fit(features, np.asarray(labels))
    return Tfidf(vectorizer, model.coef_, model.intercept_, preparation)


def save_tfidf(model: Tfidf, folder: Path) -> None:
    """Write the vocabulary (JSON, in the order of the columns) and the weights (npz)."""
    vocabulary = model.vectorizer.vocabulary_
    folder.mkdir(parents=True, exist_ok=True)
    ngrams = sorted(vocabulary, key=vocabulary.__getitem__)
    content = {
        "schema": SCHEMA,
        "vocabulary": ngrams,
        "preparation": model.preparation.as_dict(),
    }
    write_text(folder / "tfidf.json", json.dumps(content, ensure_ascii=False))
    np.savez(
        folder / "tfidf.npz", idf=model.vectorizer.idf_, weights=model.weights, bias=model.bias
    )


def load_tfidf(folder: Path) -> Tfidf:
    """Read what ``save_tfidf`` wrote; raises FolderError."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    content = read_json(folder / "tfidf.json", SCHEMA)
    ngrams, preparation = content["vocabulary"], Preparation(**content["preparation"])
    try:
        with np.load(folder / "tfidf.npz", allow_pickle=False) as stored:
            idf, weights, bias = stored["idf"], stored["weights"], stored["bias"]
    except (OSError, ValueError, KeyError) as fault:
        raise FolderError("the TF-IDF weights are unreadable", received=folder) from fault
    vectorizer = TfidfVectorizer(
        **SETTINGS, vocabulary={ngram: column for column, ngram in enumerate(ngrams)}
    )
    vectorizer.idf_ = idf
    return Tfidf(vectorizer, weights, bias, preparation)
