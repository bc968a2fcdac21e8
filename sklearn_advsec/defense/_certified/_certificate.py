"""Certificates: radii within which predictions provably do not change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_consistent_length, column_or_1d

from ..._sklearn import _check_sample_weight


@dataclass
class Certificate:
    """Radii within which predictions provably do not change.

    Attributes
    ----------
    y_pred : ndarray of shape (n_rows,)
        The predictions.
    radius : ndarray of float, shape (n_rows,)
        Every perturbation whose norm is below leaves the prediction as it is. NaN where
        the classifier abstains.
    norm : float
        The norm of the perturbations.
    confidence : float
        With which probability this holds for a row; 1.0 where it is a proof.

    See Also
    --------
    certify : Makes one.
    sklearn_advsec.metrics.certified_accuracy_scorer : Its accuracy, in cross-validation.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.defense import Certificate
    >>> radius = np.array([0.3, 0.1, np.nan])  # of the last row, nothing is said
    >>> certificate = Certificate(np.array([0, 1, 1]), radius, norm=2)
    >>> certificate
    Certificate(n_rows=3, abstained=0.333, median_radius=0.2, norm=2, confidence=1.0)
    >>> certificate.accuracy([0, 1, 1], [0.0, 0.2]).round(2).tolist()
    [0.67, 0.33]
    """

    y_pred: np.ndarray
    radius: np.ndarray
    norm: float
    confidence: float = 1.0

    def __repr__(self):
        known = self.radius[~np.isnan(self.radius)]
        told = {"n_rows": len(self.radius)}
        if len(known) < len(self.radius):
            told["abstained"] = f"{1 - len(known) / len(self.radius):.3f}"
        told["median_radius"] = f"{np.median(known):.4g}" if len(known) else "nan"
        told |= {n: v for n, v in vars(self).items() if n not in ("y_pred", "radius")}
        text = ", ".join(f"{name}={value}" for name, value in told.items())
        return f"{type(self).__name__}({text})"

    def accuracy(
        self, y: ArrayLike, eps: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Any:
        """Certified accuracy: share of rows that are right, with at least this radius.

        Parameters
        ----------
        y : array-like of shape (n_rows,)
            Labels.
        eps : float or array-like of shape (n_eps,)
            Radii.
        sample_weight : array-like of shape (n_rows,), default=None
            Sample weights.

        Returns
        -------
        accuracy : float or ndarray of shape (n_eps,)
            A lower bound of the accuracy under any attack with perturbations below `eps`.
        """
        y, eps = column_or_1d(y), np.asarray(eps)
        check_consistent_length(self.y_pred, y)
        if eps.dtype.kind not in "iuf" or not ((eps >= 0) & (eps < np.inf)).all():
            raise ValueError(f"eps must be finite radii, not negative; got {eps!r}.")
        holds = (self.y_pred == y) & (self.radius >= eps[..., None])
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, y)
        accuracy = np.average(
            holds.reshape(-1, len(y)), axis=1, weights=sample_weight
        ).reshape(eps.shape)
        return accuracy if eps.ndim else float(accuracy)
