"""What feature constraints say of rows, and make of them."""

from collections import namedtuple

import numpy as np
from sklearn.utils import check_random_state, gen_batches

from ._constraints_codes import Codes
from ._rows import is_dataframe

# So many rows are looked at together.
_BATCH = 8192

Violation = namedtuple("Violation", ["row", "constraint", "reason"])


class Judge(Codes):
    """The part of `FeatureConstraints` that users put rows to."""

    def violations(self, X_ref, X):
        """Say which rows break what.

        Parameters
        ----------
        X_ref : {DataFrame, array-like} of shape (n_rows, n_features)
            The rows before the attack.
        X : {DataFrame, array-like} of shape (n_rows, n_features)
            The rows after it.

        Returns
        -------
        violations : list of Violation
            Tuples of the row's position, the column's name (or the text of the relation)
            and the reason; empty if all rows are valid. ``pandas.DataFrame(violations)``
            is a table.
        """
        ref, x = self._encode_both(X_ref, X)
        names, found = list(self.features), []
        for j, reason, mask in self.region.breaks(ref, x, _tolerance(X)):
            what = reason if j is None else names[j]
            reason = "is broken" if j is None else reason
            for row in mask.nonzero().flatten().tolist():
                found.append(Violation(row, what, reason))
        return sorted(found, key=lambda v: v.row)

    def project(self, X_ref, X):
        """Give the nearest valid row, in units of scale, to each row.

        Exact for bounds, steps, whole numbers, one-hot groups and limits; of linear
        relations, each has its closed form, and several that share columns take turns
        [1]_. Other relations are repaired by Newton's steps; what cannot be repaired
        goes back towards the row before the attack.

        Parameters
        ----------
        X_ref : {DataFrame, array-like} of shape (n_rows, n_features)
            The rows before the attack; they have to be valid themselves.
        X : {DataFrame, array-like} of shape (n_rows, n_features)
            The rows as they are wanted.

        Returns
        -------
        X_valid : {DataFrame, ndarray} of shape (n_rows, n_features)
            In the form and the dtypes of `X_ref`.

        References
        ----------
        .. [1] J. P. Boyle and R. L. Dykstra, "A method for finding projections onto the
           intersection of convex sets in Hilbert spaces", 1986.
        """
        self.check(X_ref)
        ref, x = self._encode_both(X_ref, X)
        return self._decode(X_ref, self.region.project(ref, x))

    def sample(self, X_ref, *, random_state=None):
        """Draw one random valid row for each row.

        Parameters
        ----------
        X_ref : {DataFrame, array-like} of shape (n_rows, n_features)
            The rows to start from.
        random_state : int, RandomState instance or None, default=None
            Seed.

        Returns
        -------
        X : {DataFrame, ndarray} of shape (n_rows, n_features)
            Valid rows, far from those given: uniform in the room of each feature.
        """
        self.check(X_ref)
        ref = self.encode(X_ref)
        rng = check_random_state(random_state)
        return self._decode(X_ref, self.region.sample(ref, rng))

    def check(self, X):
        """Raise where rows break the constraints before anything was done to them.

        Parameters
        ----------
        X : {DataFrame, array-like} of shape (n_rows, n_features)
            Rows to be attacked.

        Raises
        ------
        ValueError
            If a row is out of bounds, is on no lattice, or breaks a relation.
        """
        names = list(self.features)
        X = X if is_dataframe(X) else np.asarray(X)
        for rows in gen_batches(len(X), _BATCH):
            part = X.iloc[rows] if is_dataframe(X) else X[rows]
            ref = self.encode(part)
            for j, reason, mask in self.region.breaks(ref, ref, _tolerance(X), True):
                row = int(mask.nonzero()[0])
                of = "" if j is None else f"{names[j]!r} ({_show(part, row, j)}) "
                raise ValueError(
                    f"constraints exclude the data: row {rows.start + row} of X, "
                    f"{of}{reason}. Change the constraints, or leave such rows out."
                )

    def distance(self, X_ref, X):
        """Moves in units of scale, each times the feature's cost, and their number.

        Parameters
        ----------
        X_ref, X : {DataFrame, array-like} of shape (n_rows, n_features)
            Rows before and after.

        Returns
        -------
        cost : ndarray of shape (n_rows,)
        n_changed : ndarray of int, shape (n_rows,)
        """
        ref, x = self._encode_both(X_ref, X)
        region = self.region
        return region.total_cost(ref, x).numpy(), region.changed(ref, x).numpy()


def _tolerance(X):
    return 1e-5 if getattr(X, "dtype", None) == np.float32 else 1e-6


def _show(X, row, j):
    value = X.iloc[row, j] if is_dataframe(X) else np.asarray(X)[row, j]
    return repr(value.item() if isinstance(value, np.generic) else value)
