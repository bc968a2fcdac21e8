"""The base of the transformers that change rows before a classifier sees them."""

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.base import _fit_context as fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from ..._images import image_shape_of
from ...threat import Box


class RowTransformer(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Base of the preprocessing defenses: rows are scaled to [0, 1] and back.

    A subclass writes `_transform(scaled)`, of an array in [0, 1] of the shape of the
    rows. Its parameters `bounds` and `image_shape` are read here.
    """

    image_shape = None

    _parameter_constraints = {
        "bounds": [StrOptions({"data"}), tuple, list],
        "image_shape": [tuple, list, None],
    }

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None):
        """Learn the range of the features.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Rows.
        y : object
            Ignored.

        Returns
        -------
        self : object
            The fitted transformer.
        """
        X = self._check_X(X, reset=True)
        self.row_shape_ = X.shape[1:]
        image_shape_of(self.row_shape_, self.image_shape)  # raises where it does not fit
        box = Box(self.bounds, X)
        lower, upper = box.lower, box.upper
        if self.image_shape is not None:  # one range for all pixels
            lower, upper = np.min(lower), np.max(upper)
        self.lower_ = np.asarray(lower, dtype=np.float64)
        self.width_ = np.where(upper > lower, upper - lower, 1.0)
        return self

    def transform(self, X):
        """Transform rows.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, ...)
            Rows.

        Returns
        -------
        X_out : ndarray of shape (n_samples, ...)
            Rows of the same shape and precision.
        """
        check_is_fitted(self)
        X = self._check_X(X, reset=False)
        scaled = self._transform((X - self.lower_) / self.width_)
        return (scaled * self.width_ + self.lower_).astype(X.dtype)

    def _images(self, scaled):
        """Give rows the shape of images, (n, channels, height, width), or None."""
        shape = image_shape_of(self.row_shape_, self.image_shape)
        return None if shape is None else scaled.reshape(-1, *shape)

    def _check_X(self, X, *, reset):
        return validate_data(
            self, X, reset=reset, dtype=[np.float64, np.float32], allow_nd=True
        )

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
