"""Tabular attacks: constraints given, or learned from the data."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from ..._rows import is_dataframe
from ...threat import FeatureConstraints
from .._base import WITH_CONFIDENCE, EvasionAttack, shared

# How many values of a number are kept from the data, as places to move to.
_QUANTILES = 32
_LARGEST_BATCH = 512


class TabularAttack(EvasionAttack):
    """Base of the attacks that move numbers and categories of raw rows.

    Without `constraints`, they learn some in `fit`: kinds, bounds and steps of the data.
    Columns of categories are codes of the constraints, and can be changed.

    Attributes
    ----------
    constraints_ : FeatureConstraints
        The constraints in use.
    values_ : ndarray of shape (n_features, 32)
        Quantiles of the data; of categories, their codes.
    """

    _parameter_constraints = {
        **EvasionAttack._parameter_constraints,
        **WITH_CONFIDENCE,
        **shared("bounds", "max_total_queries", "batch_size", "random_state"),
    }

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit the victim (a frozen one is kept) and learn what the data looks like.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Data on which the victim is fitted, and from which constraints are learned
            where there are none.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed for a victim that is fitted already.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the victim only.

        Returns
        -------
        self : object
            The fitted attack.
        """
        self._validate_params()
        rows = self._check_X(X, reset=True)
        if len(self.row_shape_) != 1:
            raise ValueError(
                f"{type(self).__name__} attacks rows of features; X has rows of shape "
                f"{self.row_shape_}."
            )
        constraints = self.constraints
        if constraints is None:
            constraints = FeatureConstraints.from_frame(rows)
        columns = list(rows.columns) if is_dataframe(rows) else None
        self.constraints_ = constraints.in_order(columns)
        super().fit(X, y, sample_weight)
        encoded = self.constraints_.encode(rows).numpy()
        shares = np.linspace(0, 1, _QUANTILES)
        with np.errstate(invalid="ignore"):
            self.values_ = np.stack(
                [
                    np.quantile(column[~np.isnan(column)], shares, method="nearest")
                    for column in encoded.T
                ]
            )
        return self

    def _choose_batch_size(self, X):
        size = super()._choose_batch_size(X)
        # A chunk is eight batches, of which a projection makes many copies.
        return min(size, _LARGEST_BATCH) if self.batch_size == "auto" else size

    def _constraints(self):
        return self.constraints_

    def _learns_range(self):
        return self.constraints is None

    def _access_options(self):
        """Let categories of DataFrames be codes of the constraints."""
        return {**super()._access_options(), "categories": self.constraints_.codes}
