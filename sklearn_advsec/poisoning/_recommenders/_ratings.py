"""Ratings as attacks on recommenders and their detectors take them."""

from numbers import Integral

import numpy as np
from scipy.sparse import csr_array, csr_matrix, issparse, sparray, vstack
from sklearn.utils import check_array

from ..._rows import is_dataframe
from ..._sklearn import _safe_indexing, validate_data
from .._base import with_rows


def check_ratings(owner, ratings, *, reset):
    """Return ratings as a CSR array of float64, sorted and without duplicates.

    Zeros that a sparse matrix stores are ratings of 0; those of a dense one are unknown.
    """
    ratings = validate_data(
        owner, ratings, reset=reset, accept_sparse="csr", dtype=np.float64
    )
    checked = csr_array(ratings)
    if issparse(ratings):
        checked = checked.copy()
        checked.sum_duplicates()
    return checked


def as_ratings(ratings):
    """Return ratings as a CSR array of float64, where no estimator owns them."""
    checked = check_array(ratings, accept_sparse="csr", dtype=np.float64)
    return csr_array(checked)


def stacked(ratings, profiles):
    """Return ratings of real users, and of fake ones below them."""
    return csr_array(vstack([ratings, profiles], format="csr"))


def unrated_by(ratings, users, items):
    """Return a mask of the users and items of which scores count.

    These are the ones without a rating; all of them, where all have one.
    """
    known = ratings.copy()
    known.data = np.ones_like(known.data)
    unrated = known[users][:, items].toarray() == 0
    return unrated | ~unrated.any()


def with_profiles(given, ratings, profiles):
    """Return the ratings that were given, in their type, and profiles below them."""
    if issparse(given):
        kind = csr_array if isinstance(given, sparray) else csr_matrix
        return kind(stacked(ratings, profiles))
    if not is_dataframe(given):
        return np.vstack([ratings.toarray(), profiles.toarray()])
    import pandas as pd

    n, n_new = ratings.shape[0], profiles.shape[0]
    sources = np.r_[np.arange(n), np.full(n_new, -1)]
    new = pd.DataFrame(profiles.toarray())
    return with_rows(given, sources, np.arange(n, n + n_new), new)


def selected(given, rows):
    """Return the ratings of some users, in the type they came in."""
    if issparse(given):
        given = given.tocsr()
    return _safe_indexing(given, rows)


def chosen_users(users, n_users):
    """Return the users that an attack is about, as positions; None stands for all."""
    return np.arange(n_users) if users is None else chosen_rows(users, n_users, "users")


def chosen_items(items, n_items):
    """Return the items that an attack is about, as positions."""
    if items is None:
        raise ValueError("items is None: say which items, by their columns.")
    return chosen_rows(items, n_items, "items")


def chosen_rows(values, n, name):
    """Return some of `n`, given by their positions or by a mask, as positions."""
    values = np.atleast_1d(np.asarray(values))
    if values.dtype == bool:
        if values.shape != (n,):
            raise ValueError(f"{name}: a mask has to say True or False for each of {n}.")
        values = np.flatnonzero(values)
    if values.ndim != 1 or values.dtype.kind not in "iu" or not len(values):
        raise ValueError(f"{name} must hold positions, at least one; got {values!r}.")
    if values.min() < 0 or values.max() >= n:
        raise ValueError(f"{name} must be between 0 and {n - 1}; got {values!r}.")
    if len(np.unique(values)) < len(values):
        raise ValueError(f"{name} holds some twice: {values!r}.")
    return values


def top_items(scores, ratings, n_items):
    """Return the items of largest scores that are not rated; -1 where there are none."""
    if not isinstance(n_items, Integral) or isinstance(n_items, bool) or n_items < 1:
        raise ValueError(f"n_items must be a number, 1 or more; got {n_items!r}.")
    scores = scores.copy()
    rows = np.repeat(np.arange(ratings.shape[0]), np.diff(ratings.indptr))
    scores[rows, ratings.indices] = -np.inf
    n = min(n_items, scores.shape[1])
    items = np.argsort(-scores, axis=1, kind="stable")[:, :n]
    found = np.take_along_axis(scores, items, axis=1)
    return np.where(found > -np.inf, items, -1)
