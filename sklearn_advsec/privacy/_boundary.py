"""Membership by the distance to the decision boundary, from labels alone."""

from numbers import Integral

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import HasMethods, Interval

from ._base import MembershipAttack, best_threshold

# The distance of records for which no other label was found: farther than all others.
_NOT_FOUND = 1e9


class BoundaryDistance(MembershipAttack):
    """Call a record a member if it takes much to change the target's label for it.

    Training pushes the decision boundary away from the training rows, which an attacker
    who sees labels only can measure by an adversarial attack. A record that the target
    gets wrong has distance 0. It costs hundreds of queries per record, for about what the
    loss threshold reads off one answer with probabilities.

    Parameters
    ----------
    estimator : classifier
        The target, fitted: `FrozenEstimator(classifier)` or a `PretrainedModule`. Only
        its labels are used.
    attack : evasion attack, default=None
        A prototype (``estimator=None``) of an attack that minimises a distance. None is
        ``HopSkipJump(norm=2)`` with `max_queries`, `n_jobs` and `random_state`.
    max_queries : int, default=500
        How often the target may be asked about each record; for ``attack=None``.
    label_column : int, str or None, default=-1
        The column of the records that holds the label. With None, the target's own
        prediction takes its place.
    fpr : float, default=0.1
        The share of the attacker's records that may be called members, where no members
        are known.
    n_jobs : int, default=None
        Number of joblib jobs over records; for ``attack=None``. The result does not
        depend on it.
    random_state : int, RandomState instance or None, default=0
        Seed of the default attack.

    Attributes
    ----------
    estimator_ : classifier
        The target.
    attack_ : evasion attack
        The fitted attack; it knows the range of the attacker's records.
    n_queries_ : ndarray of int, shape (n_records,)
        How often the target was asked about each record in `fit`.
    classes_ : ndarray of shape (2,)
        Non-member and member.
    threshold_ : float
        The distance above which a record is called a member.
    n_features_in_ : int
        Number of columns of the records.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where `X` has string names.

    References
    ----------
    .. [1] C. Choquette-Choo et al., "Label-only membership inference attacks",
       arXiv:2007.14321 (Section 3.4).
    .. [2] Z. Li and Y. Zhang, "Membership leakage in label-only exposures",
       arXiv:2007.15528 (Section 5).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn_advsec.privacy import BoundaryDistance
    >>> X, y = load_digits(return_X_y=True)
    >>> target = KNeighborsClassifier(1).fit(X[:900], y[:900])
    >>> records, member = np.column_stack([X, y]), np.arange(len(X)) < 900
    >>> attack = BoundaryDistance(FrozenEstimator(target), max_queries=200)
    >>> attack = attack.fit(records[::30], member[::30])
    >>> int(attack.n_queries_.max())
    200
    """

    knowledge = "label"

    _parameter_constraints = {
        **{
            name: MembershipAttack._parameter_constraints[name]
            for name in ("estimator", "label_column", "fpr", "n_jobs", "random_state")
        },
        "attack": [HasMethods(["fit", "run", "set_params"]), None],
        "max_queries": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator,
        *,
        attack=None,
        max_queries=500,
        label_column=-1,
        fpr=0.1,
        n_jobs=None,
        random_state=0,
    ):
        self.estimator = estimator
        self.attack = attack
        self.max_queries = max_queries
        self.label_column = label_column
        self.fpr = fpr
        self.n_jobs = n_jobs
        self.random_state = random_state

    def _learn(self, records, member):
        attack = self.attack
        if attack is None:
            from ..evasion import HopSkipJump

            attack = HopSkipJump(
                norm=2,
                max_queries=self.max_queries,
                n_jobs=self.n_jobs,
                random_state=self.random_state,
            )
        target = FrozenEstimator(self.estimator_)
        self.attack_ = clone(attack).set_params(estimator=target).fit(records.features)

    def _score(self, records):
        return self._measure(records)[0]

    def _measure(self, records):
        labels = np.asarray(self.estimator_.classes_)[records.codes]
        result = self.attack_.run(records.features, labels)
        return np.where(result.success, result.distance, _NOT_FOUND), result.n_queries

    def _set_threshold(self, records, member):
        distance, self.n_queries_ = self._measure(records)
        if member is None:
            self.threshold_ = self._threshold_from_non_members(distance)
        else:
            self.threshold_ = best_threshold(distance, member)
