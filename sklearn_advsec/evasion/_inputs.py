"""What evasion attacks check of the rows and targets that they are given."""

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.validation import validate_data

from .._rows import check_rows, is_dataframe
from ..victim._validation import allows_nan
from ._goal import class_positions


class InputChecks:
    """The checks, and the tags that say what they let through."""

    def _check_X(self, X, *, reset):
        """Validate rows: DataFrames stay, all else becomes an array of floats."""
        allow_nan = self.__sklearn_tags__().input_tags.allow_nan
        if is_dataframe(X):
            validate_data(self, X, reset=reset, skip_check_array=True)
            X = check_rows(X, type(self).__name__, allow_nan=allow_nan)
        else:
            X = validate_data(
                self,
                X,
                reset=reset,
                dtype=[np.float64, np.float32],
                allow_nd=True,
                ensure_all_finite="allow-nan" if allow_nan else True,
            )
        if reset:
            self.row_shape_ = X.shape[1:]
        elif X.shape[1:] != self.row_shape_:
            raise ValueError(
                f"X has rows of shape {X.shape[1:]}, but {type(self).__name__} is "
                f"expecting rows of shape {self.row_shape_} as in fit."
            )
        return X

    def _check_target(self, target, n_rows):
        """Return "least_likely" or the positions of the wanted classes, one per row."""
        if self.goal != "targeted":
            if target is not None:
                raise ValueError(f"target needs goal='targeted'; goal is {self.goal!r}.")
            return None
        if target is None:
            if n_rows is None:  # run(X, target=...) may still bring one
                return None
            raise ValueError(
                "goal='targeted' needs a target: a class label, 'least_likely' or one "
                "label per row."
            )
        classes = np.asarray(self.estimator_.classes_)
        if isinstance(target, str) and target == "least_likely":
            return target
        position = class_positions(target, classes, "target")
        if n_rows is None:
            return position
        if np.ndim(position) and len(position) != n_rows:
            raise ValueError(f"target has {len(position)} labels for {n_rows} rows of X.")
        return np.broadcast_to(position, (n_rows,)).copy()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.target_tags.required = False
        if self.estimator is not None:
            victim = get_tags(self.estimator)
            tags.target_tags.required = victim.target_tags.required and not isinstance(
                self.estimator, FrozenEstimator
            )
            tags.input_tags.allow_nan = allows_nan(self.estimator)
        return tags
