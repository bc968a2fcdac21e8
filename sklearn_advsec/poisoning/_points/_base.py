"""What attacks that add points share: where these may lie, and what harm they do."""

from numbers import Real

import numpy as np
from sklearn.utils.validation import check_consistent_length

from ..._labels import class_positions
from ..._rows import is_dataframe
from ..._sklearn import Interval
from ...threat import FeatureConstraints
from .._base import Poison, PoisoningAttack, train_on
from ._feasible import feasible_sets


class PointAttack(PoisoningAttack):
    """Base of the attacks that add points within the sphere and slab of their class.

    A subclass writes ``_points(data)``, which returns candidates ``(X, codes)`` for what
    `PointData` holds; the one after which the retrained surrogate errs most on clean rows
    is taken.

    Parameters
    ----------
    percentile : float
        Which percentile of the distances of clean rows is the radius of the sphere, and
        the width of the slab, that the points stay in.
    constraints : FeatureConstraints or None
        What a row has to satisfy to be valid: bounds, whole numbers, one-hot groups.
    validation : tuple (X, y) or None
        Clean rows to measure the harm on; None takes the training rows.
    """

    changes = "added"
    knowledge = "gradient"

    _parameter_constraints = {
        **PoisoningAttack._parameter_constraints,
        "percentile": [Interval(Real, 0, 100, closed="right")],
        "constraints": [FeatureConstraints, None],
        "validation": [tuple, None],
    }

    def _points(self, data):
        """Yield candidates: rows of shape (budget, n_features), and their codes."""
        raise NotImplementedError

    def _poison(self, task):
        self._own_estimator()
        data = PointData(self, task)
        best, most = None, -1.0
        for rows, codes in self._points(data):
            error = data.error(rows, codes)
            if error > most:
                best, most = (rows, codes), error
        self.validation_error_ = most
        rows, codes = best
        return Poison(X=rows.reshape(-1, *task.X.shape[1:]), y=codes)


class PointData:
    """Training data for attacks that add points.

    Attributes
    ----------
    X : ndarray of float, shape (n_samples, n_features)
        The rows.
    y : ndarray of int, shape (n_samples,)
        Their codes.
    sets : list of FeasibleSet
        Where points of each class may lie.
    """

    def __init__(self, attack, task):
        if task.codec.mutable is not None:
            raise ValueError(
                f"{type(attack).__name__} adds rows of numbers: encode the columns of "
                "text and categories before, such as by OneHotEncoder."
            )
        self.attack, self.task = attack, task
        self.X = task.X.reshape(len(task.X), -1).astype(np.float64)
        self.y, self.budget = task.y, task.budget
        self.n_classes = len(task.classes)
        constraints = attack.constraints
        if constraints is not None and is_dataframe(task.rows):
            constraints = constraints.in_order(list(task.rows.columns))
        self.sets = feasible_sets(
            self.X, self.y, self.n_classes, attack.percentile, constraints
        )
        self.rows, self.labels = task.rows, task.labels()
        if attack.validation is not None:
            if len(attack.validation) != 2:
                raise ValueError("validation must be a tuple (X, y).")
            self.rows, self.labels = attack.validation
            class_positions(self.labels, task.classes, "validation")
            check_consistent_length(self.rows, self.labels)

    def trained(self, rows=None, codes=None):
        """Return the surrogate, retrained with points; without any by default."""
        task = self.task
        if rows is None:
            return self.attack._trained_on(self.attack.estimator, task, task.seed)
        rows = task.decode(rows.reshape(-1, *task.X.shape[1:]))
        if is_dataframe(rows):
            import pandas as pd

            X = pd.concat([task.rows, rows])
        else:
            X = np.concatenate([task.rows, rows])
        y = task.labels(np.concatenate([task.y, codes]))
        weights = task.sample_weight
        if weights is not None:
            weights = np.append(weights, np.full(len(codes), weights.mean()))
        return train_on(self.attack.estimator, X, y, weights, task.seed)

    def validation(self):
        """Return the clean rows that the harm is measured on, and their codes."""
        rows = self.task.codec.encode(self.rows).reshape(len(self.labels), -1)
        return rows.astype(np.float64), class_positions(
            self.labels, self.task.classes, "validation"
        )

    def error(self, rows, codes):
        """Return the error of the retrained surrogate on clean rows."""
        predicted = self.trained(rows, codes).predict(self.rows)
        return float(np.mean(predicted != self.labels))
