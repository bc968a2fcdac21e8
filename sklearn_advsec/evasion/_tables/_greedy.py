"""Greedy moves of single features: what an auditor can read."""

from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions

from ..._rows import is_dataframe
from ...trees import tree_ensemble
from ...trees._edges import Edges
from ...victim import LabelAccess
from .._active_rows import ActiveRows
from .._feature_moves import Moves, approach, climb_greedily, simplify
from .._queries._base import QueryAttack
from ._base import TabularAttack

# Rows of the data that are kept to start from, for attacks by labels.
_KEPT = 500


class GreedyFeatureAttack(TabularAttack, QueryAttack):
    r"""Change one feature after another: the one that gains most for what it costs.

    With scores, all moves are tried once: numbers go to quantiles of the data (to the
    thresholds of the trees, where the victim is an ensemble of them behind steps that
    treat features one by one), categories to all that are allowed. The move of the
    largest gain per price is made, then the best ones are tried again, until the goal is
    reached. Where none gains, and with labels only, a row of the data that has the wanted
    label takes the place of the moves. In the end every change that is not needed is
    taken back, and the others shrink.

    The price of a move is the feature's cost times its size in units of scale, plus its
    cost once more for a feature that was not changed before: few features change.

    Parameters
    ----------
    estimator : classifier or RegressionVictim, default=None
        The victim, on raw rows; see :class:`FastGradientMethod`.
    answers : {"score", "label"}, default="score"
        What the attacker sees of the victim.
    norm : {np.inf, 1, 2, 0}, default=1
        The norm of `eps` and of the distances in the result; units are those of scale.
    eps : float, default=None
        The largest norm of all changes; None is no limit but the constraints.
    n_values : int, default=32
        How many values of a number are tried.
    shortlist : int, default=50
        After the first, a round tries this many of the best moves again.
    goal : {"misclassification", "targeted", "confidence_reduction"}, \
            default="misclassification"
        What is wanted.
    target : class label, "least_likely" or array-like of labels, default=None
        The wanted class for ``goal="targeted"``.
    confidence : float, default=None
        The probability that the wanted class has to reach.
    bounds : "data", None or tuple (lower, upper), default=None
        A narrower range than that of the constraints.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`~sklearn_advsec.threat.FeatureConstraints`.
        None learns kinds, bounds and steps in `fit`.
    max_queries : int, default=5000
        How often the victim may be asked about each row.
    max_total_queries : int, default=None
        How many rows may be sent to the victim in one `run`.
    batch_size : int or "auto", default="auto"
        How many rows are attacked at once.
    n_jobs : int, default=None
        Number of joblib jobs over chunks of rows. The result does not depend on it.
    random_state : int, RandomState instance or None, default=0
        Seed for the rows that are kept.
    verbose : int, default=0
        Whether to print progress.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    constraints_ : FeatureConstraints
        The constraints in use.
    candidates_ : list of ndarray
        For each column, the values that are tried.
    starts_ : ndarray of shape (n_starts, n_features)
        Rows of the data, as numbers.
    box_ : Box
        The range from `bounds`.
    batch_size_ : int
        The batch size in use.
    row_shape_ : tuple of int
        The shape of one row.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, where `X` has string names.

    References
    ----------
    .. [1] V. Ballet et al., "Imperceptible adversarial attacks on tabular data",
       arXiv:1911.03274 (costs by the importance of features:
       :meth:`~sklearn_advsec.threat.FeatureConstraints.weigh_by_importance`).
    .. [2] P. Yang et al., "Greedy attack and Gumbel attack: generating adversarial
       examples for discrete data", arXiv:1805.12316 (Section 3.1: first the features,
       then their values, greedily).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn_advsec.evasion import GreedyFeatureAttack
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> forest = RandomForestClassifier(n_estimators=20, random_state=0)
    >>> attack = GreedyFeatureAttack(forest).fit(X, y)
    >>> result = attack.run(X[:20], y[:20])
    >>> changed = (result.X_adv != X[:20]).sum(axis=1)
    >>> bool(result.success.all()), bool(changed.mean() < 6)
    (True, True)
    """

    knowledge = "score"

    _parameter_constraints = {
        **QueryAttack._parameter_constraints,
        "answers": [StrOptions({"score", "label"})],
        "norm": [Real],
        "eps": [Interval(Real, 0, None, closed="left"), None],
        "n_values": [Interval(Integral, 2, None, closed="left")],
        "shortlist": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        estimator=None,
        *,
        answers="score",
        norm=1,
        eps=None,
        n_values=32,
        shortlist=50,
        goal="misclassification",
        target=None,
        confidence=None,
        bounds=None,
        constraints=None,
        max_queries=5000,
        max_total_queries=None,
        batch_size="auto",
        n_jobs=None,
        random_state=0,
        verbose=0,
    ):
        self.estimator = estimator
        self.answers = answers
        self.norm = norm
        self.eps = eps
        self.n_values = n_values
        self.shortlist = shortlist
        self.goal = goal
        self.target = target
        self.confidence = confidence
        self.bounds = bounds
        self.constraints = constraints
        self.max_queries = max_queries
        self.max_total_queries = max_total_queries
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Fit the victim (a frozen one is kept), and learn where features may go.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features)
            Data on which the victim is fitted, from which constraints are learned where
            there are none, and of which some rows are kept.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed for a victim that is fitted already.

        Returns
        -------
        self : object
            The fitted attack.
        """
        super().fit(X, y)
        rows = self._check_X(X, reset=False)
        thresholds = tree_thresholds(self.estimator_, rows[:100])
        features = self.constraints_.features.values()
        self.candidates_ = [
            candidates(values, thresholds.get(j), self.n_values, feature.step)
            for j, (values, feature) in enumerate(
                zip(self.values_, features, strict=True)
            )
        ]
        rng = check_random_state(self.random_state)
        kept = np.sort(rng.permutation(len(rows))[:_KEPT])
        rows = rows.iloc[kept] if is_dataframe(rows) else rows[kept]
        self.starts_ = self.constraints_.encode(rows).numpy()
        return self

    def _choose_batch_size(self, X):
        if self.batch_size != "auto":
            return self.batch_size
        # The first round knows each move of each row of a chunk, of eight batches.
        return int(np.clip(2**18 // (self.n_values * self.row_shape_[0]), 1, 1024))

    def _open_access(self, X, max_total_queries=None):
        if self.answers == "score":
            return super()._open_access(X, max_total_queries)
        return LabelAccess(
            self.estimator_,
            X,
            max_queries=self.max_queries,
            max_total_queries=max_total_queries,
            batch_size=self.batch_size_,
            **self._access_options(),
        )

    def _make_aim(self, access, y, target):
        if self.answers == "label" and (self.confidence or target == "least_likely"):
            raise ValueError(
                "confidence, and target='least_likely', need answers='score'."
            )
        return super()._make_aim(access, y, target)

    def _search(self, active, state):
        access = state.access
        moves = Moves(access, self.candidates_)
        if not len(moves):
            active.give_up(torch.ones_like(active.labels, dtype=torch.bool))
            return
        if self.answers == "score":
            climb_greedily(active, moves, self.shortlist)
            active = ActiveRows(state, torch.nonzero(~state.success).flatten())
        mutable = access.region.mutable.to(access.x.device)
        approach(active, moves, torch.as_tensor(self.starts_), mutable)
        moved = moves.changed(access.x, state.x_adv).any(1)
        rows = torch.nonzero(state.success & moved).flatten()
        if len(rows):
            simplify(ActiveRows(state, rows), moves, state)


def candidates(quantiles, thresholds, n_values, step):
    """Return the values of a number to try: both sides of thresholds, or quantiles."""
    found = np.unique(quantiles)
    if thresholds is not None and thresholds.size:
        # Rounding to the step must not lead back over the threshold.
        margin = 0.499 * (step or 0.0)
        low, high = thresholds
        found = np.unique(np.concatenate([found[[0, -1]], low - margin, high + margin]))
    if len(found) > n_values:
        found = found[np.linspace(0, len(found) - 1, n_values).round().astype(int)]
    return found


def tree_thresholds(estimator, X):
    """Return, by column, the values just before and just behind each threshold.

    Of what is no ensemble of trees, there are none; of an ensemble, those of columns
    that the steps in front of it treat one by one.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    X : {DataFrame, ndarray} of shape (n_rows, n_features)
        Some rows that it takes.

    Returns
    -------
    thresholds : dict of int to ndarray of shape (2, n_thresholds)
    """
    try:
        edges = Edges(tree_ensemble(estimator), X)
    except TypeError:
        return {}
    found = {}
    for j in np.unique(edges.column[edges.column >= 0]):
        own = edges.column == j
        low, high = edges.low[own], edges.high[own]
        fine = np.isfinite(low) & np.isfinite(high)
        found[int(j)] = np.unique(np.stack([low[fine], high[fine]]), axis=1)
    return found
