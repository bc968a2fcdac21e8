"""STRIP: rows whose prediction stays, whatever they are blended with."""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.utils.validation import check_is_fitted

from ..._rows import is_dataframe
from ..._seeding import undisturbed
from ..._sklearn import HasMethods, Interval
from ...victim import ask_scores
from .._base import Sanitizer, Verdict

if TYPE_CHECKING:
    from scipy.sparse import sparray, spmatrix

_BATCH = 20_000  # blended rows that are asked about at once


class STRIP(Sanitizer):
    """Remove rows whose prediction stays when they are blended with others.

    A row with a trigger gets the target class even under another row; of a clean row,
    the prediction becomes uncertain. The score is minus the entropy of the
    probabilities, averaged over blends with some training rows. After training,
    `score_samples` looks at new rows in the same way: an entropy below what is usual for
    clean rows is suspicious.

    Numbers are blended as images are, with the smallest value as background: the other
    row is added, up to the largest value. Of DataFrames with columns that are no numbers,
    half of the columns are taken from the other row.

    Triggers that blends cover, such as a pattern blended into the whole image, and models
    that are sure of every blend, escape it.

    Parameters
    ----------
    estimator : classifier or None, default=None
        Trained on the suspicious data; needs `predict_proba`. None makes a prototype,
        which takes the classifier of the `SanitizedClassifier` around it.
    contamination : float, default=0.1
        Share of each class that is removed.
    n_blends : int, default=30
        With how many training rows each row is blended.
    alpha : float, default=1.0
        How much of the other row is added.
    random_state : int, RandomState instance or None, default=None
        Seed of the training and of the rows that others are blended with.

    Attributes
    ----------
    estimator_ : classifier
        The classifier, trained on the data as it came in.
    partners_ : {ndarray, DataFrame}
        The rows that others are blended with.
    scores_ : ndarray of shape (n_samples,)
        Minus the mean entropy of each row's blends, in nats.
    sample_indices_ : ndarray of int
        The rows that were kept.
    relabelled_ : ndarray of int
        Empty: nothing is relabelled.
    classes_ : ndarray of shape (n_classes,)
        The labels.

    See Also
    --------
    SpectralSignatures, ActivationClustering : Look at all rows of a class together.

    References
    ----------
    .. [1] Y. Gao, C. Xu, D. Wang, S. Chen, D. C. Ranasinghe, S. Nepal, "STRIP: a defence
       against trojan attacks on deep neural networks", arXiv:1902.06531 (Algorithm 1;
       Equations 2 to 4, in nats). There, blends are with rows that are held out, and an
       entropy is compared with a quantile of theirs; here they are with training rows,
       which are ranked within their class.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.poisoning import STRIP, BackdoorTrigger
    >>> X, y = load_digits(return_X_y=True)
    >>> trigger = BackdoorTrigger(image_shape=(8, 8), size=3, budget=0.1, random_state=0)
    >>> model = RandomForestClassifier(30, random_state=0)
    >>> strip = STRIP(model, n_blends=10, random_state=0)
    >>> strip = strip.fit(*trigger.fit_resample(X, y))
    >>> clean, stamped = X[y != 0][:100], trigger.transform(X[y != 0][:100])
    >>> bool(strip.score_samples(stamped).mean() < strip.score_samples(clean).mean())
    True
    """

    _parameter_constraints = {
        **Sanitizer._parameter_constraints,
        "estimator": [HasMethods(["fit", "predict"]), None],
        "contamination": [Interval(Real, 0, 1, closed="both")],
        "n_blends": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, 1, closed="right")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        contamination: float = 0.1,
        n_blends: int = 30,
        alpha: float = 1.0,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.n_blends = n_blends
        self.alpha = alpha
        self.random_state = random_state

    def score_samples(self, X: ArrayLike | spmatrix | sparray) -> np.ndarray:
        """Compute the mean entropy of each row's blends.

        Parameters
        ----------
        X : {array-like, DataFrame, sparse matrix} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        entropy : ndarray of shape (n_samples,)
            In nats; the lower, the more suspicious.
        """
        check_is_fitted(self)
        return self._entropies(self._check_rows(X, reset=False))

    def _decide(self, data):
        model = self._own_estimator()
        if not hasattr(model, "predict_proba"):
            raise TypeError(
                f"estimator: STRIP needs predict_proba, which {type(model).__name__} "
                "lacks. Use another classifier, or CalibratedClassifierCV around it."
            )
        self.estimator_ = self._trained_on(model, data, data.seed)
        self.classes_ = data.classes
        n = len(data.y)
        chosen = data.rng.permutation(n)[: self.n_blends]
        self.partners_ = _dense(data.select(chosen))
        self._blends = _Blends(self, data)
        return Verdict(-self._entropies(data.rows))

    def _entropies(self, rows):
        n, k = rows.shape[0], len(self.partners_)
        step, found = max(1, _BATCH // k), []
        for start in range(0, n, step):
            some = slice(start, start + step)
            some = rows.iloc[some] if is_dataframe(rows) else _dense(rows[some])
            blends = self._blends(some, self.partners_)
            with undisturbed(self.estimator_):
                proba = ask_scores(self.estimator_, blends, "predict_proba")
            proba = np.clip(proba.astype(np.float64), 1e-300, 1)
            entropy = -(proba * np.log(proba)).sum(1)
            found.append(entropy.reshape(k, -1).mean(0))
        return np.concatenate(found)


class _Blends:
    """Blends of rows with all partners, one partner after the other."""

    def __init__(self, strip, data):
        rows = data.rows
        self.alpha = strip.alpha
        self.swapped = None
        if _is_mixed(rows):
            shape = len(strip.partners_), rows.shape[1]
            self.swapped = data.rng.random_sample(shape) < 0.5
            return
        rows = _numbers(rows)
        axis = 0 if rows.ndim == 2 else None  # pixels share their range
        if issparse(rows):
            self.low, self.high = (
                _dense(end).ravel() for end in (rows.min(0), rows.max(0))
            )
        else:
            self.low, self.high = np.nanmin(rows, axis), np.nanmax(rows, axis)

    def __call__(self, rows, partners):
        if self.swapped is not None:
            return self._swap(rows, partners)
        numbers, low = _numbers(rows), self.low
        blends = np.concatenate(
            [
                np.clip(numbers + self.alpha * (z - low), low, self.high)
                for z in _numbers(partners)
            ]
        )
        if not is_dataframe(rows):
            return blends.astype(rows.dtype if rows.dtype.kind == "f" else np.float64)
        import pandas as pd

        return pd.DataFrame(blends, columns=rows.columns)

    def _swap(self, rows, partners):
        import pandas as pd

        parts = []
        for i, swapped in enumerate(self.swapped):
            part, other = rows.copy(), partners.iloc[np.full(len(rows), i)]
            for name in rows.columns[swapped]:
                part[name] = other[name].set_axis(part.index)
            parts.append(part)
        return pd.concat(parts)


def _is_mixed(rows):
    if not is_dataframe(rows):
        return False
    from pandas.api.types import is_numeric_dtype

    return not all(is_numeric_dtype(dtype) for dtype in rows.dtypes)


def _numbers(rows):
    return rows.to_numpy(dtype=np.float64) if is_dataframe(rows) else rows


def _dense(rows):
    return rows.toarray() if issparse(rows) else rows
