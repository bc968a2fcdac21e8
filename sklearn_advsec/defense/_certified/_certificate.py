"""What a certificate says."""

from dataclasses import dataclass

import numpy as np


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
    """

    y_pred: np.ndarray
    radius: np.ndarray
    norm: float
    confidence: float = 1.0

    def accuracy(self, y, eps, sample_weight=None):
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
        right = self.y_pred == np.asarray(y)
        holds = right & (self.radius >= np.asarray(eps)[..., None])
        accuracy = np.average(
            holds,
            axis=-1,
            weights=None
            if sample_weight is None
            else np.broadcast_to(np.asarray(sample_weight, dtype=float), holds.shape),
        )
        return accuracy if np.ndim(eps) else float(accuracy)
