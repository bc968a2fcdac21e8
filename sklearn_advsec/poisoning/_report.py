"""Cross-validation with poison, inside of the folds and before the split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone
from sklearn.metrics import get_scorer_names
from sklearn.model_selection import cross_val_score

from .._sklearn import HasMethods, StrOptions, validate_params
from ._classifiers import PoisonedClassifier, lend

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

    from ._base import PoisoningAttack

_PLACES = ("inside", "before_split")


@dataclass
class PoisoningReport:
    """Scores of a classifier in cross-validation, clean and poisoned.

    Attributes
    ----------
    clean : ndarray of shape (n_splits,)
        Without poison.
    inside : ndarray of shape (n_splits,) or None
        With poison in the training folds only: the harm to clean test rows.
    before_split : ndarray of shape (n_splits,) or None
        With poison in all rows before they are split, as a victim without a clean test
        set measures it. Poisoned rows are then among the test rows too, and labels that
        the attacker flipped count as errors of a model that resists.

    See Also
    --------
    poisoning_report : Makes one.
    sklearn_advsec.inspection.PoisoningCurveDisplay : Draws it.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.poisoning import PoisoningReport
    >>> report = PoisoningReport(np.array([0.9, 0.94]), inside=np.array([0.8, 0.85]))
    >>> (report.clean - report.inside).round(2).tolist()  # fold by fold
    [0.1, 0.09]
    """

    clean: np.ndarray
    inside: np.ndarray | None = None
    before_split: np.ndarray | None = None


@validate_params(
    {
        "estimator": [HasMethods(["fit", "predict"])],
        "poisoner": [HasMethods(["fit_resample", "get_params"])],
        "X": ["array-like", "sparse matrix"],
        "y": ["array-like"],
        "where": [list, tuple, str],
        "cv": ["cv_object"],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "n_jobs": [Integral, None],
    }
)
def poisoning_report(
    estimator: Any,
    poisoner: PoisoningAttack,
    X: ArrayLike | spmatrix | sparray,
    y: ArrayLike,
    *,
    where: str | Sequence[str] = _PLACES,
    cv: Any = None,
    scoring: str | Callable[..., Any] | None = None,
    n_jobs: int | None = None,
) -> PoisoningReport:
    """Cross-validate a classifier without and with poison in its training data.

    Where the poison gets in decides what is measured: an attack inside of each training
    fold leaves test rows clean; one before the split gets into these as well.

    Parameters
    ----------
    estimator : classifier
        What is poisoned.
    poisoner : PoisoningAttack
        The attack; with ``estimator=None`` it takes `estimator` for its surrogate.
    X : {array-like, DataFrame, sparse matrix} of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,)
        Their labels.
    where : {"inside", "before_split"} or list of them, default=("inside", "before_split")
        Where the poison gets in.
    cv : int, cross-validation generator or iterable, default=None
        As in :func:`~sklearn.model_selection.cross_val_score`; an iterable of indices
        goes with ``where="inside"`` only, if the attack adds rows.
    scoring : str or callable, default=None
        As there.
    n_jobs : int, default=None
        Number of joblib jobs, over the folds.

    Returns
    -------
    report : PoisoningReport
        The scores of all folds.

    See Also
    --------
    PoisonedClassifier : One share of poison.
    sklearn_advsec.inspection.PoisoningCurveDisplay : Draws the report.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import RidgeClassifier
    >>> from sklearn_advsec.poisoning import LabelFlipping, poisoning_report
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> flips = LabelFlipping(strategy="random", budget=0.3, random_state=0)
    >>> report = poisoning_report(RidgeClassifier(), flips, X, y)
    >>> bool(report.clean.mean() > report.inside.mean() > report.before_split.mean())
    True
    """
    places = (where,) if isinstance(where, str) else tuple(where)
    unknown = [place for place in places if place not in _PLACES]
    if unknown or not places:
        raise ValueError(f"where must be among {_PLACES}; got {where!r}.")
    counted = cv is None or isinstance(cv, Integral)
    if not counted and not hasattr(cv, "get_n_splits"):
        cv = list(cv)
        if not cv or not all(hasattr(s, "__len__") and len(s) == 2 for s in cv):
            raise ValueError("cv must hold a pair of training and test rows per split.")
    options = {"cv": cv, "scoring": scoring, "n_jobs": n_jobs, "error_score": "raise"}
    report = PoisoningReport(cross_val_score(estimator, X, y, **options))
    if "inside" in places:
        poisoned = PoisonedClassifier(clone(estimator), clone(poisoner))
        report.inside = cross_val_score(poisoned, X, y, **options)
    if "before_split" in places:
        attack = lend(clone(poisoner), estimator)
        report.before_split = cross_val_score(
            estimator, *attack.fit_resample(X, y), **options
        )
    return report
