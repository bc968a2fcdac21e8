"""The membership game: targets whose members are known."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import is_regressor
from sklearn.frozen import FrozenEstimator
from sklearn.utils import check_array, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from .._estimators import allows_nan, as_nets_take_them, check_trainable, told_classes
from .._rows import check_rows
from .._sklearn import HasMethods, Interval, _safe_indexing, check_parameters
from ..batched import fit_many
from ..metrics._membership import group_codes
from ._records import make_records

if TYPE_CHECKING:
    from joblib import Memory


@dataclass(repr=False)
class MembershipRound:
    """One target of a :class:`MembershipGame`, and who is in it.

    Attributes
    ----------
    target : FrozenEstimator
        The trained target, ready to be handed to an attack.
    records : {ndarray, DataFrame} of shape (n_records, n_features + 1)
        The rows, in the order of the game's `X`, with their label in the last column.
    membership : ndarray of int, shape (n_records,)
        1 for records that the target was trained on, else 0.
    train_accuracy, test_accuracy : float
        The target's accuracy on members and on non-members; of a regressor, R2.

    See Also
    --------
    MembershipGame : Its `play` yields them.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.privacy import MembershipGame
    >>> X, y = load_iris(return_X_y=True)
    >>> (played,) = MembershipGame(DecisionTreeClassifier(random_state=0)).play(X, y)
    >>> played.records.shape, int(played.membership.sum()), played.train_accuracy
    ((150, 5), 75, 1.0)
    """

    target: FrozenEstimator
    records: object
    membership: np.ndarray
    train_accuracy: float
    test_accuracy: float

    @property
    def gap(self) -> float:
        """The accuracy on members less that on non-members."""
        return self.train_accuracy - self.test_accuracy

    def __repr__(self):
        return (
            f"MembershipRound(n_members={int(self.membership.sum())}, "
            f"n_records={len(self.membership)}, "
            f"train_accuracy={self.train_accuracy:.3f}, "
            f"test_accuracy={self.test_accuracy:.3f})"
        )


class MembershipGame:
    """Draw who is in and who is out, train targets, and hand over records to judge.

    Parameters
    ----------
    estimator : classifier or regressor
        The recipe of the targets, unfitted.
    n_targets : int, default=1
        Number of targets, each with members of its own. They are trained as one where
        that is possible (see :func:`~sklearn_advsec.batched.fit_many`).
    train_size : float or int, default=0.5
        Share, or number, of the rows that a target is trained on.
    n_jobs : int, default=None
        Number of joblib jobs over targets, which come back from workers as they are:
        they are what is played for.
    memory : str or joblib.Memory, default=None
        Where trained targets are kept.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws and the trainings.

    See Also
    --------
    MembershipRound : What `play` yields.
    sklearn_advsec.inspection.MembershipRocDisplay : Draws what was reached.

    References
    ----------
    .. [1] S. Yeom et al., "Privacy risk in machine learning: analyzing the connection to
       overfitting", arXiv:1709.01604 (Experiment 1).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.privacy import GapAttack, MembershipGame
    >>> X, y = load_digits(return_X_y=True)
    >>> game = MembershipGame(DecisionTreeClassifier(), n_targets=2)
    >>> for played in game.play(X, y):
    ...     attack = GapAttack(played.target)
    ...     scores = cross_val_score(attack, played.records, played.membership)
    ...     print(played.train_accuracy, bool(scores.mean() > 0.55))
    1.0 True
    1.0 True
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict"])],
        "n_targets": [Interval(Integral, 1, None, closed="left")],
        "train_size": [Interval(Real, 0, None, closed="neither")],
        "n_jobs": [Integral, None],
        "memory": [str, HasMethods("cache"), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        n_targets: int = 1,
        train_size: float = 0.5,
        n_jobs: int | None = None,
        memory: str | Memory | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.n_targets = n_targets
        self.train_size = train_size
        self.n_jobs = n_jobs
        self.memory = memory
        self.random_state = random_state

    def play(
        self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None
    ) -> list[MembershipRound]:
        """Train the targets.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,)
            Their labels. Where they are no numbers, records are DataFrames. A regressor
            takes numbers of any kind.
        groups : array-like of shape (n_samples,), default=None
            What rows belong together, such as the visits of one person: all of a group
            are members, or none. `train_size` is then of groups.

        Returns
        -------
        rounds : list of MembershipRound
            One per target.

        Raises
        ------
        ValueError
            If `train_size` leaves no members or no non-members, or `estimator` is frozen.
        """
        check_parameters(vars(self), self._parameter_constraints, type(self).__name__)
        X = check_rows(X, type(self).__name__, allow_nan=allows_nan(self.estimator))
        X = as_nets_take_them(X, self.estimator)
        y = column_or_1d(y)
        if is_regressor(self.estimator):
            y = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
        else:
            check_classification_targets(y)
        records = make_records(X, y)
        n_rows, size = len(y), self.train_size
        codes = np.arange(n_rows) if groups is None else group_codes(groups, n_rows)
        n_units = codes.max() + 1
        n_members = int(size if isinstance(size, Integral) else size * n_units)
        if not 0 < n_members < n_units:
            what = "rows" if groups is None else "groups"
            raise ValueError(
                f"train_size={size} makes {n_members} members of {n_units} {what}; there "
                "must be members and non-members."
            )
        check_trainable(self.estimator, "estimator")
        rng = check_random_state(self.random_state)
        subsets = [rng.permutation(n_units)[:n_members] for _ in range(self.n_targets)]
        if groups is not None:
            subsets = [np.flatnonzero(np.isin(codes, drawn)) for drawn in subsets]
        seeds = rng.randint(2**31 - 1, size=self.n_targets)
        recipe = self.estimator
        if not is_regressor(recipe):
            recipe = told_classes(recipe, np.unique(y))
        targets = fit_many(
            recipe, X, y, subsets, seeds, n_jobs=self.n_jobs, memory=self.memory
        )
        return [
            self._round(target, X, y, records, subset)
            for target, subset in zip(targets, subsets, strict=True)
        ]

    def _round(self, target, X, y, records, subset):
        membership = np.zeros(len(y), dtype=int)
        membership[subset] = 1
        accuracy = [
            float(target.score(_safe_indexing(X, rows), y[rows]))
            for rows in (np.flatnonzero(membership), np.flatnonzero(membership == 0))
        ]
        return MembershipRound(FrozenEstimator(target), records, membership, *accuracy)
