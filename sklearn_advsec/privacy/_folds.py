"""The models of a cross-validation, as shadow models that cost nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

import joblib
import numpy as np
from sklearn.base import is_classifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import check_cv
from sklearn.utils.validation import check_is_fitted

from .._rows import is_dataframe, plain_rows
from .._sklearn import BaseSearchCV, _safe_indexing
from ._records import Records
from ._shadow_base import TrainedShadows


class FoldShadows(TrainedShadows):
    """Models of folds, in which rows that were never trained on have a pretended part."""


class KeepModels:
    """A scorer that keeps the models of a search, for the audit of privacy.

    `GridSearchCV` forgets the models of its folds. With this as `scoring`, it scores as
    before, and each model is kept as it is scored, those of all candidates.

    Parameters
    ----------
    scoring : str, callable or None, default=None
        What scores; None is the estimator's own `score`.
    folder : path-like, default=None
        Where models are kept, in files of joblib; needed where `n_jobs` runs processes.
        Only load a folder that you trust. None keeps them in memory.

    See Also
    --------
    PrivacyAudit.from_cross_validation : Takes the search.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.model_selection import GridSearchCV, RepeatedStratifiedKFold
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.privacy import KeepModels, PrivacyAudit
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> search = GridSearchCV(
    ...     DecisionTreeClassifier(random_state=0), {"max_depth": [2, None]},
    ...     cv=RepeatedStratifiedKFold(n_splits=2, n_repeats=3, random_state=0),
    ...     scoring=KeepModels("roc_auc"),
    ... ).fit(X, y)
    >>> PrivacyAudit.from_cross_validation(search, X, y).results_["attack"].tolist()[:2]
    ['GapAttack', 'LossThreshold']
    """

    def __init__(self, scoring: Any = None, folder: Any = None) -> None:
        self.scoring = scoring
        self.folder = folder
        self._kept = []

    def __call__(self, estimator: Any, X: Any, y: Any = None) -> float:
        item = _digest(X), estimator
        if self.folder is None:
            self._kept.append(item)
        else:
            path = Path(self.folder)
            path.mkdir(parents=True, exist_ok=True)
            joblib.dump(item, path / f"{uuid4().hex}.joblib")
        return check_scoring(estimator, self.scoring)(estimator, X, y)

    def models(self) -> list[tuple[str, Any]]:
        """Return what was kept.

        Returns
        -------
        models : list of tuple (str, estimator)
            The models, each with a digest of the rows that it was scored on.
        """
        if self.folder is None:
            return list(self._kept)
        return [joblib.load(file) for file in sorted(Path(self.folder).glob("*.joblib"))]


def _digest(X):
    rows, _ = plain_rows(X)
    rows = rows if is_dataframe(rows) else np.asarray(rows)
    return joblib.hash(Records(rows, None, None).keys(single=False))


def models_of_folds(search, X, y, groups=None):
    """Return the models of a cross-validation, and the rows that each was trained on."""
    if isinstance(search, dict):
        if "estimator" not in search or "indices" not in search:
            raise ValueError(
                "search: cross_validate has to keep the models and their rows, with "
                "return_estimator=True and return_indices=True."
            )
        return list(search["estimator"]), list(search["indices"]["train"])
    if not isinstance(search, BaseSearchCV):
        raise TypeError(
            "search must be what cross_validate returned, or a fitted search; got "
            f"{search!r:.80}"
        )
    check_is_fitted(search)
    if not isinstance(search.scoring, KeepModels):
        raise ValueError(
            f"search: {type(search).__name__} keeps scores, and the model that is fitted "
            "to all rows, but not the models of its folds. Search with "
            "scoring=KeepModels(...), or run cross_validate(search.best_estimator_, X, "
            "y, cv=..., return_estimator=True, return_indices=True)."
        )
    kept = {}
    best = search.best_params_
    for digest, model in search.scoring.models():
        parameters = model.get_params()
        if all(_equal(parameters[name], value) for name, value in best.items()):
            kept[digest] = model
    cv = check_cv(search.cv, y, classifier=is_classifier(search.estimator))
    models, trained_on = [], []
    for train, test in cv.split(X, y, groups):
        digest = _digest(_safe_indexing(X, test))
        if digest not in kept:
            raise ValueError(
                "search: its splits cannot be made again, or its models were not kept. "
                "A cv that shuffles needs a random_state; with processes (n_jobs), "
                "KeepModels needs a folder."
            )
        models.append(kept[digest])
        trained_on.append(train)
    return models, trained_on


def _equal(one, other):
    try:
        return bool(one == other)
    except (TypeError, ValueError):
        return one is other


def deal(trained_on, n_rows, n_out, groups=None):
    """Give each row that was never trained on the part of a row that was.

    Rows in the training set have as many models without them as there are repetitions;
    those outside would have all, and be told apart by that alone. Rows outside of one
    group have one part.
    """
    rng = np.random.RandomState(0)
    of_part = np.arange(n_out)
    if groups is not None:
        of_part = np.unique(groups, return_inverse=True)[1].ravel()
    n_parts = of_part.max(initial=-1) + 1
    repeats = -(-n_parts // n_rows)
    parts = [rng.permutation(n_rows) for _ in range(repeats)]
    played = np.concatenate(parts)[:n_parts][of_part]
    dealt = []
    for rows in trained_on:
        mask = np.zeros(n_rows, dtype=bool)
        mask[rows] = True
        outside = n_rows + np.flatnonzero(mask[played])
        dealt.append(np.concatenate([np.flatnonzero(mask), outside]))
    return dealt


def with_copies(trained, keys):
    """Say of equal records that a model knows all of them, if it knows one.

    Returned as well is which records are alone with their values. The others are in most
    models by their copies, and left out by those only that lack all of these.
    """
    _, group, count = np.unique(keys, return_inverse=True, return_counts=True)
    group = group.ravel()
    known = np.zeros((len(trained), group.max() + 1), dtype=bool)
    for model, mask in enumerate(trained):
        known[model, group[mask]] = True
    return known[:, group], count[group] == 1
