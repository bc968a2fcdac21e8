"""Shadow models, and the base of the attacks that train them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import clone, is_regressor
from sklearn.neural_network import MLPClassifier
from sklearn.utils import check_random_state

from .._estimators import as_nets_take_them, check_trainable, told_classes, unwrap
from .._progress import logged
from .._rows import is_dataframe
from .._sklearn import HasMethods, Interval
from ..batched import fit_many
from ._base import MembershipAttack
from ._signals import (
    check_probabilities,
    predicted_codes,
    probabilities,
    residual_probability,
    residuals,
    true_probability,
)


@dataclass(eq=False, repr=False)
class TrainedShadows:
    """Shadow models that are there already, such as those of a cross-validation.

    Attacks take them as `shadow_estimator`, and train none.

    Attributes
    ----------
    estimators : sequence of classifier
        The models, fitted.
    indices : sequence of array-like of int
        The rows that each was trained on: positions in the records that `fit` of the
        attack is given.

    See Also
    --------
    ShadowAttack : Takes them.
    PrivacyAudit.from_cross_validation : Makes them of the models of the folds.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import ExtraTreesClassifier
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn_advsec.privacy import RMIA, TrainedShadows, make_records
    >>> X, y = load_digits(return_X_y=True)
    >>> target = ExtraTreesClassifier(10, random_state=0).fit(X[:400], y[:400])
    >>> own, labels = X[800:], y[800:]
    >>> models = cross_validate(
    ...     target, own, labels, return_estimator=True, return_indices=True
    ... )
    >>> shadows = TrainedShadows(models["estimator"], models["indices"]["train"])
    >>> attack = RMIA(
    ...     FrozenEstimator(target), shadow_estimator=shadows, n_shadow_models=5
    ... )
    >>> attack = attack.fit(make_records(own, labels))
    >>> scores = attack.decision_function(make_records(X[:800], y[:800]))
    >>> bool(scores[:400].mean() > scores[400:].mean())
    True
    """

    estimators: Sequence[Any]
    indices: Sequence[ArrayLike]

    def __post_init__(self):
        if len(self.estimators) != len(self.indices):
            raise ValueError(
                f"indices must be one for each of the {len(self.estimators)} estimators; "
                f"there are {len(self.indices)}."
            )

    def __sklearn_clone__(self) -> TrainedShadows:
        return self

    def __repr__(self) -> str:
        return f"TrainedShadows(n_models={len(self.estimators)})"


def _check_positions(rows, n_rows):
    rows = np.asarray(rows)
    if rows.dtype.kind not in "iu" or rows.ndim != 1:
        raise ValueError("indices of shadow_estimator must be positions of records.")
    if len(rows) and not 0 <= rows.min() <= rows.max() < n_rows:
        raise ValueError(
            f"indices of shadow_estimator must be positions among the {n_rows} records."
        )
    return rows


class ShadowAttack(MembershipAttack):
    """Base of the attacks that train shadow models on the attacker's records.

    A subclass lists, of the parameters below and those of :class:`MembershipAttack`,
    those that it has. In ``_learn(records, member)`` it calls
    ``_train_shadows(records)``; then ``_trained_on(records)`` says which models were
    trained on which records, and ``_shadow_signals(records, signal)`` what they say of
    them.

    Records are recognised in single precision, so that they are the same in any dtype,
    and by all their digits where some are one in it (times in seconds). To a target that
    rounds to float32 by itself, as trees of scikit-learn do, such records stay one.

    Of a regressor, the residual :math:`r` of a record's label stands for its probability,
    as the Gaussian likelihood :math:`e^{-r^2 / 2 s^2}`, where `s` is the usual residual
    of shadow models on records that they were not trained on.

    Parameters
    ----------
    shadow_estimator : classifier, regressor or TrainedShadows, default=None
        The recipe of the shadow models, which may be another architecture than the
        target's. None clones the target's own, with all its parameters, the number of
        epochs included; a `PretrainedModule` has none. Models that are trained already
        come as :class:`TrainedShadows`.
    n_shadow_models : int
        Number of shadow models.
    shadow_size : float or int, default=0.5
        Share, or number, of the records that each shadow model is trained on: best as
        many as the target.
    candidates : {array-like, DataFrame} of shape (n_candidates, n_columns), default=None
        Records that are to be judged, for ``mode="online"``: shadow models are trained on
        them as well, whose membership stays unknown. As a parameter, they survive
        `cross_validate`. ``mode="offline"`` leaves them alone.
    memory : str or joblib.Memory, default=None
        Where finished shadow models are kept; see
        :func:`~sklearn_advsec.batched.fit_many`. The folder holds pickled models: only
        load one that you trust.
    device : str or torch.device, default=None
        Where those are trained that :func:`~sklearn_advsec.batched.fit_many` trains as
        one.
    n_jobs : int, default=None
        Number of joblib jobs; the result does not depend on it.
    random_state : int, RandomState instance or None, default=0
        Seed of the rows of each shadow model, of its training, and of what is trained on
        their answers.
    verbose : int, default=0
        Whether to print progress.

    Attributes
    ----------
    shadow_estimators_ : list of estimator of length n_shadow_models
        The shadow models.
    shadow_indices_ : list of ndarray of int
        Rows that each shadow model was trained on: of the records in `fit`, followed by
        those candidates that are not among them.

    See Also
    --------
    MembershipAttack : Base of all membership attacks.
    LikelihoodRatio : One of those with shadow models.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.metrics import roc_auc_score
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.privacy import ShadowAttack
    >>> class Difficulty(ShadowAttack):
    ...     knowledge = "label"
    ...
    ...     def __init__(self, estimator, *, n_shadow_models=8, label_column=-1):
    ...         self.estimator = estimator
    ...         self.n_shadow_models = n_shadow_models
    ...         self.label_column = label_column
    ...
    ...     def _learn(self, records, member):
    ...         self._train_shadows(records)
    ...
    ...     def _set_threshold(self, records, member):
    ...         self.threshold_ = 0.5
    ...
    ...     def _score(self, records):  # right, though shadow models are mostly wrong
    ...         right = self.estimator_.predict(records.features) == records.codes
    ...         easy = self._shadow_signals(records, lambda p, y: p.argmax(1) == y)
    ...         return right * (1 - easy.mean(axis=0) / 2)
    >>> X, y = load_digits(return_X_y=True)
    >>> target = DecisionTreeClassifier(random_state=0).fit(X[:450], y[:450])
    >>> records, member = np.column_stack([X, y]), np.arange(len(X)) < 450
    >>> attack = Difficulty(FrozenEstimator(target)).fit(records[900:])
    >>> scores = attack.decision_function(records[:900])
    >>> bool(roc_auc_score(member[:900], scores) > 0.65)
    True
    """

    shadow_estimator = None
    shadow_size = 0.5
    candidates = memory = device = n_jobs = None
    _keeps_answers = False  # of shadows to the records, in place of the models
    random_state = verbose = 0

    _parameter_constraints = {
        **MembershipAttack._parameter_constraints,
        "shadow_estimator": [HasMethods(["fit"]), TrainedShadows, None],
        "n_shadow_models": [Interval(Integral, 1, None, closed="left")],
        "shadow_size": [
            Interval(Real, 0, 1, closed="neither"),
            Interval(Integral, 1, None, closed="left"),
        ],
        "candidates": ["array-like", HasMethods(["iloc"]), None],
        "memory": [str, HasMethods(["cache"]), None],
        "device": [str, torch.device, None],
    }

    def _needs_probabilities(self):
        return self.knowledge == "score"

    def _n_tasks(self):
        return self.n_shadow_models

    def _train_shadows(self, records):
        """Train the shadows on random halves of the records and the candidates."""
        check_device(self.device)
        pool = self._pool(records)
        if isinstance(self.shadow_estimator, TrainedShadows):
            self._take_shadows(self.shadow_estimator, len(pool))
        else:
            self._fit_shadows(pool)
        trained = np.zeros((self.n_shadow_models, len(pool)), dtype=bool)
        for mask, rows in zip(trained, self.shadow_indices_, strict=True):
            mask[rows] = True
        # A record may be in the pool more than once; one use is a use.
        self._trained = {}
        self._single = not pool.collide()
        for key, column in zip(pool.keys(self._single), trained.T, strict=True):
            self._trained[key] = self._trained.get(key, False) | column
        if pool.values is not None and not self._keeps_answers:
            self._residual_scale = self._usual_residual(pool)
        return pool

    def _take_shadows(self, shadows, n_rows):
        if self._needs_probabilities() and not is_regressor(self.estimator_):
            check_probabilities(self.estimator_)
            for model in shadows.estimators:
                check_probabilities(model, "shadow_estimator")
        if len(shadows.estimators) != self.n_shadow_models:
            raise ValueError(
                f"n_shadow_models={self.n_shadow_models}, but shadow_estimator has "
                f"{len(shadows.estimators)} trained ones."
            )
        self.shadow_estimators_ = list(shadows.estimators)
        self.shadow_indices_ = [
            _check_positions(rows, n_rows) for rows in shadows.indices
        ]

    def _fit_shadows(self, pool):
        recipe = shadow_recipe(self.estimator_, self.shadow_estimator)
        if self._needs_probabilities() and not is_regressor(self.estimator_):
            check_probabilities(self.estimator_)
            if self.shadow_estimator is not None and not _decides_late(recipe):
                check_probabilities(recipe, "shadow_estimator")
        rng = check_random_state(self.random_state)
        self.shadow_indices_ = self._draw_subsets(pool, rng)
        seeds = rng.randint(2**31 - 1, size=self.n_shadow_models)
        # All shadows are needed: a callback cannot stop their training.
        tasks = self._tasks(range(self.n_shadow_models), "shadow model", stops=False)
        next(tasks)
        try:
            self.shadow_estimators_ = fit_many(
                recipe,
                as_recipe_takes_them(pool.features, recipe),
                pool.labels,
                self.shadow_indices_,
                seeds,
                n_jobs=self.n_jobs,
                memory=self.memory,
                device=self.device,
                verbose=self.verbose,
                callback=lambda *_: next(tasks, None),
                result=self._answers(pool) if self._keeps_answers else None,
            )
        except ValueError as error:
            error.add_note(
                f"This is a shadow model, with shadow_size={self.shadow_size} of "
                f"{len(pool)} records: give more of them, or another shadow_estimator."
            )
            raise

    def _draw_subsets(self, pool, rng):
        """Draw what each shadow is trained on."""
        size = self._subset_size(len(pool))
        return draw_subsets(len(pool), self.n_shadow_models, size, rng)

    def _usual_residual(self, pool):
        """Return the residual of shadows on records that they were not trained on."""
        squares = [
            self._shadow_residuals(model, pool.features, pool.values) ** 2
            for model in self._asked_shadows()
        ]
        others = ~self._trained_on(pool)
        unseen = others if others.any() else np.ones_like(others)
        return float(np.sqrt(np.mean(np.stack(squares)[unseen])))

    def _pool(self, records):
        """Join the attacker's records and the candidates that are not among them.

        Offline, no shadow is trained on what is to be judged.
        """
        if self.candidates is None:
            return records
        try:
            extra = self._records(self._check_X(self.candidates, reset=False))
        except (TypeError, ValueError) as error:
            raise type(error)(f"candidates: {error}") from error
        if self.mode == "offline":
            return records
        single = not (records.collide() or extra.collide())
        known = set(records.keys(single))
        fresh = np.array([key not in known for key in extra.keys(single)], dtype=bool)
        if is_dataframe(records.rows):
            import pandas as pd

            rows = pd.concat([records.rows, extra.rows[fresh]], ignore_index=True)
        else:
            rows = np.concatenate([records.rows, extra.rows[fresh]])
        return self._records(rows)

    def _subset_size(self, n_rows):
        size = self.shadow_size
        if isinstance(size, Integral):
            if size > n_rows:
                raise ValueError(
                    f"shadow_size={size} is more than the {n_rows} records there are."
                )
            return int(size)
        size = max(1, int(size * n_rows))
        if self.n_shadow_models == 2 and size == n_rows // 2:
            size = n_rows - size  # of an odd number, so that no row is left out
        return size

    def _shadow_probabilities(self, model, features):
        classes = np.asarray(self.estimator_.classes_)
        with named_shadow():
            return probabilities(model, as_recipe_takes_them(features, model), classes)

    def _shadow_codes(self, model, features):
        with named_shadow():
            return predicted_codes(model, as_recipe_takes_them(features, model))

    def _shadow_residuals(self, model, features, values):
        with named_shadow():
            return residuals(model, as_recipe_takes_them(features, model), values)

    def _label_probabilities(self, records):
        """Return what the target gives the records' labels, in place of probabilities."""
        if records.values is not None:
            residual = residuals(self.estimator_, records.features, records.values)
            return residual_probability(residual, self._residual_scale)
        proba = probabilities(self.estimator_, records.features)
        return true_probability(proba, records.codes)

    def _shadow_label_probabilities(self, records):
        """Return what shadows give them: an array (n_shadow_models, n_records)."""
        if records.values is None:
            return self._shadow_signals(records, true_probability)
        found = [
            self._shadow_residuals(model, records.features, records.values)
            for model in self._asked_shadows()
        ]
        return residual_probability(np.stack(found), self._residual_scale)

    def _shadow_signals(self, records, signal):
        """Compute a signal of every shadow: an array (n_shadow_models, n_records)."""
        return np.stack(
            [
                signal(self._shadow_probabilities(model, records.features), records.codes)
                for model in self._asked_shadows()
            ]
        )

    def _asked_shadows(self):
        """Yield the shadow models, and log how many were asked."""
        name = type(self).__name__
        yield from logged(self.shadow_estimators_, name, "asked shadow model")

    def _trained_on(self, records):
        """Return which shadows were trained on which records, as a mask of that shape."""
        unused = np.zeros(self.n_shadow_models, dtype=bool)
        keys = records.keys(self._single)
        columns = [self._trained.get(key, unused) for key in keys]
        return np.stack(columns, axis=1)


@contextmanager
def named_shadow():
    """Say of errors that they are a shadow's, which may lack a category."""
    try:
        yield
    except ValueError as error:
        error.add_note(
            "This is a shadow model, trained on a part of the records: a category that "
            "they lack is unknown to it. Give encoders handle_unknown='ignore', or their "
            "categories."
        )
        raise


def draw_subsets(n_rows, n_subsets, size, rng):
    """Draw the rows of each shadow; halves come in pairs that share no row.

    Paired, every row is used by exactly half of the shadows, which online attacks need.
    Of an odd number, a pair leaves one row out, or shares one if its halves are the
    larger ones; what the first pair leaves out, the next shadow uses.
    """
    subsets, left_out = [], None
    while len(subsets) < n_subsets:
        order = rng.permutation(n_rows)
        if left_out is not None:
            at = np.flatnonzero(order == left_out)
            order[0], order[at], left_out = left_out, order[0], None
        subsets.append(np.sort(order[:size]))
        if size in (n_rows // 2, n_rows - n_rows // 2) and len(subsets) < n_subsets:
            if len(subsets) == 1 and 2 * size < n_rows:
                left_out = order[size]
            subsets.append(np.sort(order[-size:]))
    return subsets


def check_device(device):
    """Raise where a name is none of a device."""
    if isinstance(device, str):
        try:
            torch.device(device)
        except RuntimeError as error:
            raise ValueError(f"device={device!r} is none: {error}") from None


def shadow_recipe(target, shadow_estimator):
    """Return what shadow models are trained by: what was given, or the target's own."""
    classes = getattr(target, "classes_", None)
    if is_regressor(target):
        classes = None  # the ones of a `RegressionVictim` are not labels
    if shadow_estimator is not None:
        check_trainable(shadow_estimator, "shadow_estimator")
        if is_regressor(target) != is_regressor(shadow_estimator):
            raise TypeError(
                f"shadow_estimator: {type(shadow_estimator).__name__} must be a "
                f"{'regressor' if is_regressor(target) else 'classifier'}, as the target "
                "is."
            )
        return _told(shadow_estimator, classes)
    recipe = unwrap(target)
    copy = clone(recipe)
    if copy is recipe:  # a trained torch module: nobody knows how it was trained
        raise ValueError(
            f"shadow_estimator=None clones the target's recipe, but "
            f"{type(recipe).__name__} has none. Set shadow_estimator to an unfitted "
            "model: it may be of another architecture."
        )
    return _told(copy, classes)


def independent_shadows(trained, i):
    """Return which shadows know nothing of who is in another one, as a mask.

    Halves that come in pairs, and the folds of a cross-validation, leave out other
    records each: where one of them is judged by the rest, how many of these were trained
    on a record tells whether it was.
    """
    left_out = ~trained
    shared = (left_out & left_out[i]).sum(axis=1)
    by_chance = left_out.sum(axis=1) * left_out[i].sum() / trained.shape[1]
    independent = shared >= by_chance / 2
    independent[i] = False
    return independent


def _told(recipe, classes):
    return recipe if classes is None else told_classes(recipe, np.asarray(classes))


def _decides_late(recipe):
    """Whether a stack chooses its final estimator, which gives probabilities, in fit."""
    parameters = recipe.get_params().items()
    return any(n.endswith("final_estimator") and v is None for n, v in parameters)


def as_recipe_takes_them(features, recipe):
    """Give batched perceptrons float32, in which they are trained twice as fast."""
    if is_dataframe(features) or type(recipe) is not MLPClassifier:
        return as_nets_take_them(features, recipe)
    return features.astype(np.float32, copy=False)
