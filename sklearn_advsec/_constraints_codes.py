"""Rows as arrays of numbers, with categories as codes that constraints know."""

import numpy as np
import torch

from ._rows import RowCodec, is_dataframe
from .threat._features import NAMED


class Codes:
    """The part of `FeatureConstraints` that turns rows into numbers and back."""

    @property
    def codes(self):
        """The categories of each column of them, for :class:`RowCodec`."""
        return {
            f.name: [*f.categories, np.nan] if f.missing else f.categories
            for f in self.features.values()
            if f.kind in NAMED
        }

    def encode(self, X):
        """Return rows as a tensor of float64, shape (n_rows, n_features)."""
        if is_dataframe(X):
            unknown = [c for c in X.columns if c not in self.features]
            lost = [c for c in self.features if c not in X.columns]
            if unknown or lost:
                what = f"{lost[0]!r} is missing in X" if lost else f"{unknown[0]!r} in X"
                raise ValueError(
                    f"unknown column: {what}; the constraints are for "
                    f"{few(list(self.features))}."
                )
            X = X[list(self.features)]
            codec = RowCodec(X, categories=self.codes)
            return torch.as_tensor(missing_as_nan(codec, codec.encode(X)))
        X = np.asarray(X)
        if X.ndim != 2 or X.shape[1] != len(self.features):
            raise ValueError(
                f"X has shape {X.shape}; the constraints are for rows of "
                f"{len(self.features)} columns."
            )
        return self.codes_of(X)

    def codes_of(self, X):
        """Replace categories that are numbers by their codes."""
        array = np.array(X, dtype=np.float64)
        for j, feature in enumerate(self.features.values()):
            if feature.kind in NAMED:
                array[:, j] = _code(array[:, j], feature)
        return torch.as_tensor(array)

    def values_of(self, array):
        """Undo :meth:`codes_of`, in a copy."""
        array = array.copy()
        for j, feature in enumerate(self.features.values()):
            if feature.kind in NAMED:
                known = array[:, j] >= 0
                values = np.asarray(feature.categories, dtype=np.float64)
                array[known, j] = values[array[known, j].astype(int)]
        return array

    def _decode(self, X_ref, x):
        if is_dataframe(X_ref):
            X = X_ref[list(self.features)]
            codec = RowCodec(X, categories=self.codes)
            x = nan_as_code(codec, x.numpy())
            decoded = codec.decode(x, codec.encode(X), np.arange(len(X)))
            return decoded[list(X_ref.columns)]
        X_ref = np.asarray(X_ref)
        return self.values_of(x.numpy()).astype(
            X_ref.dtype if X_ref.dtype.kind == "f" else np.float64
        )

    def _encode_both(self, X_ref, X):
        ref, x = self.encode(X_ref), self.encode(X)
        if len(ref) != len(x):
            raise ValueError(f"X_ref has {len(ref)} rows, and X has {len(x)}.")
        return ref, x


def missing_as_nan(codec, array):
    """Replace the code of a missing value, in columns of codes, by NaN; in place."""
    for j, at in _missing_codes(codec):
        array[array[:, j] == at, j] = np.nan
    return array


def nan_as_code(codec, array):
    """Undo :func:`missing_as_nan`, in a copy."""
    array = array.copy()
    for j, at in _missing_codes(codec):
        array[np.isnan(array[:, j]), j] = at
    return array


def _missing_codes(codec):
    import pandas as pd

    for j, values in enumerate(codec.columns.values):
        lost = [] if values is None else np.flatnonzero(pd.isna(values))
        if len(lost):
            yield j, lost[0]


def _code(values, feature):
    """Return the positions of numbers in the categories; -1 where unknown."""
    known = np.asarray(feature.categories, dtype=np.float64)
    order = np.argsort(known)
    at = order[np.minimum(np.searchsorted(known, values, sorter=order), len(known) - 1)]
    codes = np.where(known[at] == values, at, -1.0)
    return np.where(np.isnan(values), np.nan, codes)


def few(names):
    return f"{names[:8]}{' and more' if len(names) > 8 else ''}"
