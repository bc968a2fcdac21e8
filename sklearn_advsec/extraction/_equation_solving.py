"""Equation solving: the parameters of linear and small neural classifiers."""

from __future__ import annotations

import warnings
from numbers import Integral
from typing import Any, Literal

import numpy as np
from scipy.optimize import linprog
from sklearn.utils import check_random_state

from .._labels import find_positions
from .._sklearn import Interval, StrOptions
from ..exceptions import QueryBudgetExceeded
from ._active import distinct_rows
from ._base import ExtractionAttack
from ._parameters import Probes, linear_copy, network_copy
from ._softmax_fit import fit_network, fit_softmax, refine_softmax
from ._victim import centered_logits, decimals_of, soft_targets

# Beyond this log-odds, 1 - p has lost so many digits that a probe is worth little.
_SATURATED = 16.0


def unsaturate(oracle, probes, rows, scores, kind):
    """Move probes whose answers have lost their digits; needs some budget left.

    Parameters
    ----------
    oracle : Oracle
        The victim.
    probes : Probes
        Where `rows` come from; its center moves where the victim is too sure there.
    rows : ndarray of shape (n_probes, n_features)
        The center first, then a step along each feature.
    scores : ndarray of shape (n_probes, n_classes)
        The answers.
    kind : {"probability", "logit"}
        What they are.

    Returns
    -------
    scores, rows : ndarray
        Answers and probes, with fewer digits lost.
    """
    for _ in range(60):
        bad = _lost_digits(scores, kind)
        n_more = int(bad.sum())
        if not n_more or n_more > oracle.affordable:
            break
        if bad[0]:  # the center itself: look for a less certain row, then start over
            center = _less_certain(oracle, probes, kind)
            if center is None:
                break
            probes.center = center
            if oracle.affordable < probes.n_features + 1:
                break
            rows = probes.cross()
        else:
            rows = rows.copy()
            rows[bad] = oracle.as_sent(probes.center + (rows - probes.center)[bad] / 4)
            if (rows[bad] == oracle.as_sent(probes.center)).all(axis=1).any():
                break
        scores = oracle.ask(rows)
    return scores, rows


def _less_certain(oracle, probes, kind):
    """Find a point where no class is nearly excluded, between rows of the pool."""
    n = int(min(20, len(probes.pool), oracle.affordable))
    rows = probes.pool[probes.rng.permutation(len(probes.pool))[:n]]
    if not n:
        return None
    scores = oracle.ask(rows)
    winner = scores.argmax(axis=1)
    others = np.flatnonzero(winner != winner[0])
    if len(others):  # bisect between two rows of different classes
        near, far = rows[0], rows[others[0]]
        for _ in range(int(min(40, oracle.affordable))):
            middle = oracle.as_sent((near + far) / 2)
            answer = oracle.ask(middle[None])
            if not _lost_digits(answer, kind)[0]:
                return middle
            same = answer.argmax() == winner[0]
            near, far = (middle, far) if same else (near, middle)
    good = np.flatnonzero(~_lost_digits(scores, kind))
    return rows[good[0]] if len(good) else None


def _lost_digits(scores, kind):
    """Whether an answer is so near to 0 or 1 that its log-ratios are poor."""
    if kind == "logit":
        return np.zeros(len(scores), dtype=bool)
    if scores.shape[1] == 2:  # one is computed as 1 less the other
        return scores.min(axis=1) < np.exp(-_SATURATED)
    return scores.min(axis=1) < np.finfo(scores.dtype).tiny


def bisect(ask, near, far, label_near, label_far, n_steps):
    """Bisect segments between rows of different labels, all at once.

    Parameters
    ----------
    ask : callable
        Takes rows, returns positions of classes.
    near, far : ndarray of shape (n_segments, n_features)
        The ends.
    label_near, label_far : ndarray of int, shape (n_segments,)
        Their labels, which differ.
    n_steps : int
        Queries per segment.

    Returns
    -------
    boundary : ndarray of shape (n_segments, n_features)
        Middle of what is left of each segment.
    label_near, label_far : ndarray of int, shape (n_segments,)
        The labels on both sides of it.
    """
    near, far, label_far = near.copy(), far.copy(), label_far.copy()
    for _ in range(n_steps):
        middle = (near + far) / 2
        labels = ask(middle)
        same = labels == label_near
        near[same] = middle[same]
        far[~same], label_far[~same] = middle[~same], labels[~same]
    return (near + far) / 2, label_near, label_far


def solve_boundaries(points, first, second, X, labels, n_classes):
    r"""Find the linear classifier whose boundaries run through given points.

    Each point between classes k and l is one homogeneous equation,
    :math:`(w_k - w_l) \cdot x + b_k - b_l = 0`. Their null space holds the parameters;
    a linear program then picks, within it, those that label all rows correctly with the
    largest margin. It also finds the sign. The scale stays open.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_features)
        Points on boundaries, with features of about unit scale.
    first, second : ndarray of int, shape (n_points,)
        The classes on both sides of each.
    X, labels : ndarray of shape (n_rows, n_features), (n_rows,)
        Rows with known labels.
    n_classes : int
        Number of classes.

    Returns
    -------
    weights : ndarray of shape (n_classes, n_features + 1)
        Coefficients and, last, intercepts, which sum to 0 over the classes.
    """
    points = np.column_stack([points, np.ones(len(points))])
    width = points.shape[1]
    equations = np.zeros((len(points), n_classes, width))
    rows = np.arange(len(points))
    equations[rows, first] = points
    equations[rows, second] = -points
    zero_sum = np.tile(np.eye(width), n_classes)
    system = np.vstack([equations.reshape(len(points), -1), zero_sum])
    _, singular, basis = np.linalg.svd(system, full_matrices=True)
    singular = np.concatenate([singular, np.zeros(len(basis) - len(singular))])
    small = singular <= 1e-6 * singular[0]
    n_free = max(int(small.sum()), 1)
    basis = basis[len(basis) - n_free :].reshape(n_free, n_classes, width)

    scores = np.einsum("fkw,nw->nfk", basis, np.column_stack([X, np.ones(len(X))]))
    own = np.take_along_axis(scores, labels[:, None, None], axis=2)
    other = np.broadcast_to(np.arange(n_classes) != labels[:, None, None], scores.shape)
    margins = (own - scores)[other].reshape(len(X), n_free, n_classes - 1)
    margins = margins.transpose(0, 2, 1).reshape(-1, n_free)
    result = linprog(
        c=np.append(np.zeros(n_free), -1.0),
        A_ub=np.column_stack([-margins, np.ones(len(margins))]),
        b_ub=np.zeros(len(margins)),
        bounds=[(-1, 1)] * n_free + [(None, None)],
    )
    return np.einsum("f,fkw->kw", result.x[:-1], basis)


_MOST_BISECTIONS = 52
_FEWEST_BISECTIONS = 8


class EquationSolving(ExtractionAttack):
    r"""Steal a linear classifier, or a small network, by solving for its parameters.

    The log-ratios of the probabilities of a softmax model are linear in its input, so
    :math:`d + 1` answers give all of its parameters: a base point and one step along each
    feature. Affine steps before the model (scalers, PCA, ...) only change which
    parameters they are; what is found is the whole pipeline as one linear model.

    ======================  =======================================  ====================
    the victim answers      queries without a `max_queries`          what is found
    ======================  =======================================  ====================
    probabilities           d + 1, and the checks                    all, to ~1e-10
    rounded probabilities   10 (d + 1)                               least squares
    labels                  about 52 for each unknown                all but the scale
    probabilities, with     5 per unknown                            an equivalent
    `n_hidden`                                                       network, if lucky
    ======================  =======================================  ====================

    Parameters
    ----------
    estimator : classifier
        The victim, or an object that answers for it; see :class:`ExtractionAttack`.
    knowledge : {"auto", "score", "label"}, default="auto"
        What is asked for; "auto" asks for scores where there are some.
    n_hidden : int, default=None
        Number of hidden units of a victim that is a network of one hidden layer. None is
        a linear victim.
    activation : {"tanh", "logistic", "relu"}, default="tanh"
        Activation of those units. For "relu", :class:`ReLUExtraction` is exact.
    decimals : int or "auto", default="auto"
        To how many decimals the victim rounds; "auto" looks at its answers.
    max_queries : int, default=None
        How many rows may be sent in all; see :class:`ExtractionAttack`.
    n_restarts : int, default=5
        Random starts of the fit of a network.
    n_checks : int, default=10
        Number of rows of `X`, beside those that the equations take, on which the copy is
        compared with the victim; fewer where `max_queries` leaves fewer, and 0 where
        nothing is to be spent on it.
    batch_size : int, default=1024
        How many rows are sent at once.
    query_log : bool, default=False
        Whether to keep `query_log_`.
    warm_start : bool, default=False
        Whether the next fit goes on from what was paid for in this one.
    verbose : int, default=0
        Whether to print, now and then, how many rows were sent.
    random_state : int, RandomState instance or None, default=0
        Seed of all that is drawn.

    Attributes
    ----------
    coef_, intercept_ : ndarray of shape (1 or n_classes, n_features), (1 or n_classes,)
        Parameters of a linear victim on raw features. Of more than two classes, only
        differences can be known: they sum to 0 over the classes. From labels, all are
        known up to one positive factor, if enough pairs of classes touch: three classes
        in a row, of which the outer two do not, leave one ratio open (and the labels
        right all the same).
    coefs_, intercepts_ : list of ndarray
        Those of a network, as in `MLPClassifier`.
    copy_ : estimator
        The stolen model, as a scikit-learn estimator.
    classes_ : ndarray of shape (n_classes,)
        The victim's classes.
    decimals_ : int or None
        To how many decimals the answers are rounded; None where they are exact.
    residual_ : float
        Largest error of the copy (in probability) on all rows that were asked about, or,
        from labels, the share of them that it gets wrong. NaN where there were no more
        equations than unknowns: they have a solution for any answers, so that it would
        say nothing.
    n_checked_ : int
        Number of rows among them that no equation was made of.
    estimator_ : object
        The victim.
    n_queries_ : int
        How many rows were sent.
    query_log_ : QueryLog
        Rows and answers, if kept.

    Raises
    ------
    QueryBudgetExceeded
        If `max_queries` does not do; mostly before anything is asked.

    Warns
    -----
    UserWarning
        If the copy gets checked rows wrong: the victim is not linear in the columns as
        they are sent. Encoders of numbers make it so.

    See Also
    --------
    ReLUExtraction : For networks of one hidden layer.
    RoundedProbabilities : Against it.

    References
    ----------
    .. [1] F. Tramer et al., "Stealing machine learning models via prediction APIs",
       USENIX Security 2016, arXiv:1609.02943 (Section 4.1: equation solving for
       logistic, softmax and multi-layer models; 5.1: rounding; 6.1: labels only).
    .. [2] D. Lowd and C. Meek, "Adversarial learning", KDD 2005 (Section 4: line search
       for the weights of a linear classifier from labels).

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn_advsec.extraction import EquationSolving
    >>> X, y = load_iris(return_X_y=True)
    >>> victim = LogisticRegression(max_iter=1000).fit(X, y)
    >>> attack = EquationSolving(FrozenEstimator(victim)).fit(X)
    >>> attack.n_queries_ - attack.n_checked_
    5
    >>> bool(np.allclose(attack.coef_, victim.coef_, rtol=1e-8))
    True
    """

    _parameter_constraints = {
        **ExtractionAttack._parameter_constraints,
        "knowledge": [StrOptions({"auto", "score", "label"})],
        "n_hidden": [Interval(Integral, 1, None, closed="left"), None],
        "activation": [StrOptions({"tanh", "logistic", "relu"})],
        "decimals": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "n_restarts": [Interval(Integral, 1, None, closed="left")],
        "n_checks": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        knowledge: Any = "auto",
        n_hidden: int | None = None,
        activation: Literal["tanh", "logistic", "relu"] = "tanh",
        decimals: int | Literal["auto"] = "auto",
        max_queries: int | None = None,
        n_restarts: int = 5,
        n_checks: int = 10,
        batch_size: int = 1024,
        query_log: bool = False,
        warm_start: bool = False,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.estimator = estimator
        self.knowledge = knowledge
        self.n_hidden = n_hidden
        self.activation = activation
        self.decimals = decimals
        self.max_queries = max_queries
        self.n_restarts = n_restarts
        self.n_checks = n_checks
        self.batch_size = batch_size
        self.query_log = query_log
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state

    def _steal(self, oracle, array, y):
        if array.ndim != 2:
            raise ValueError(
                f"X must have two dimensions for {type(self).__name__}; got {array.ndim}."
            )
        rng = check_random_state(self.random_state)
        probes = Probes(array, oracle, rng)
        self.decimals_ = None
        if oracle.log.kind == "label":
            if self.n_hidden is not None:
                raise ValueError("n_hidden needs scores; the victim gives labels only.")
            weights = self._solve_labels(oracle, probes)
        elif self.n_hidden is not None:
            self._solve_network(oracle, probes)
            return self._check(oracle, probes)
        else:
            weights = self._solve_scores(oracle, probes)
        coef = weights[:, :-1] / probes.scale
        intercept = weights[:, -1] - coef @ probes.center
        known = oracle.log.kind == "score"
        self.copy_ = linear_copy(self.classes_, coef, intercept, probability=known)
        self.coef_, self.intercept_ = self.copy_.coef_, self.copy_.intercept_
        self._check(oracle, probes)

    def _check(self, oracle, probes):
        """Compare the copy with the victim on rows that no equation was made of."""
        rows = oracle.as_sent(probes.pool[probes.rng.permutation(len(probes.pool))])
        rows = distinct_rows(rows)[: self.n_checks]
        within, answers = oracle.ask_what_fits(rows)
        rows = rows[within]
        self.n_checked_ = len(rows)
        if not len(rows):
            return
        if oracle.log.kind == "label":
            error = float(np.mean(self.copy_.predict(rows) != answers))
            share = self.n_checked_ / oracle.n_queries
            self.residual_ = share * error + (1 - share) * self.residual_
            wrong = error > 0.1
        else:
            shown = soft_targets(answers, self._score_kind())
            error = float(np.abs(self.copy_.predict_proba(rows) - shown).max())
            self.residual_ = float(np.fmax(self.residual_, error))
            step = 10.0**-self.decimals_ if self.decimals_ else 0.0
            wrong = error > 1e-3 + step
        if wrong:
            warnings.warn(
                f"the copy is off by up to {error:.2g} on {len(rows)} rows of X that no "
                "equation was made of: the victim is not what the equations take it for. "
                "Look at fidelity, or use an attack that trains a copy (KnockoffNets).",
                stacklevel=4,
            )

    # Scores ----------------------------------------------------------------------------

    def _solve_scores(self, oracle, probes):
        needed = probes.n_features + 1
        self._check_budget(oracle, needed)
        rows = probes.cross()
        scores = oracle.ask(rows)
        self.classes_ = self._victim_classes(np.arange(scores.shape[1]))
        kind = self._score_kind()
        self.decimals_ = decimals_of(scores) if self.decimals == "auto" else self.decimals
        if kind == "probability" and self.decimals_ is not None:
            return self._solve_rounded(oracle, probes, rows, scores)
        scores, rows = unsaturate(oracle, probes, rows, scores, kind)
        logits = centered_logits(scores, kind)
        design = probes.design(rows)
        finite = np.isfinite(logits).all(axis=1)
        if not finite.all():
            raise ValueError(
                f"{(~finite).sum()} of {len(rows)} probes have probabilities of exactly "
                "0, which give no equation. Allow more max_queries, so that they can be "
                "moved, or give X of the region where the victim is less certain."
            )
        weights = np.linalg.lstsq(design, logits, rcond=None)[0].T
        self.residual_ = np.nan  # as many equations as unknowns
        return weights

    def _solve_rounded(self, oracle, probes, rows, scores):
        """Fit many rounded answers, each batch of them where the last fit is unsure."""
        total = 10 * (probes.n_features + 1)
        weights = None
        for share in (0.25, 0.5, 0.75, 1.0):
            goal = int(total * share)
            n_new = int(min(max(goal - len(rows), 0), oracle.affordable))
            if n_new:
                new = probes.informative(n_new, weights)
                rows = np.concatenate([rows, new])
                scores = np.concatenate([scores, oracle.ask(new)])
            design = probes.design(rows)
            targets = soft_targets(scores, "probability")
            weights = fit_softmax(design, targets, start=weights)
            weights = refine_softmax(design, targets, weights)
        self.residual_ = np.nan
        if len(rows) > probes.n_features + 1:
            self.residual_ = _error(design @ weights.T, scores, "probability")
        return weights

    # Labels ----------------------------------------------------------------------------

    def _solve_labels(self, oracle, probes):
        d = probes.n_features
        n_start = int(min(max(4 * d, 100), oracle.affordable))
        rows = probes.near_pool(n_start)
        labels = oracle.ask(rows)
        self.classes_ = self._victim_classes(np.unique(labels))

        def ask(rows):
            labels = oracle.ask(rows)
            position, known = find_positions(labels, self.classes_)
            if not known.all():  # of a victim that says nowhere which there are
                raise ValueError(
                    f"estimator answered {labels[~known].tolist()[0]!r}, and to none of "
                    f"{n_start} rows around X before. Give it classes_, or X with rows "
                    "of all classes."
                )
            return position

        labels = ask(rows)
        if len(np.unique(labels)) < 2:
            raise ValueError(
                f"the victim answered {self.classes_.tolist()[labels[0]]!r} to all of "
                f"{n_start} rows around X, so nothing tells where its boundary is. Give "
                "X with rows of several classes."
            )
        n_classes = len(self.classes_)
        n_unknown = (n_classes - 1) * (d + 1) - 1
        # A few more than unknowns: points that two segments share tell one thing only.
        share = 0.05 if n_classes == 2 else 0.25
        n_segments = int((1 + share) * n_unknown) + 3
        n_steps = _MOST_BISECTIONS
        if oracle.affordable < n_segments * n_steps:
            n_steps = int(oracle.affordable // n_segments)
        if n_steps < _FEWEST_BISECTIONS:
            raise QueryBudgetExceeded(
                f"max_queries={self.max_queries} is not enough for labels only: "
                f"{n_segments} boundary points need at least {_FEWEST_BISECTIONS} "
                f"queries each, after {n_start} for the start."
            )
        near, far = _pairs(labels, n_segments, probes.rng)
        points, first, second = bisect(
            ask, rows[near], rows[far], labels[near], labels[far], n_steps
        )
        weights = solve_boundaries(
            probes.standardize(points), first, second, probes.standardize(rows), labels,
            n_classes,
        )  # fmt: skip
        found = (probes.design(rows) @ weights.T).argmax(axis=1)
        self.residual_ = float(np.mean(found != labels))
        return weights / np.abs(weights).max()

    # Networks --------------------------------------------------------------------------

    def _solve_network(self, oracle, probes):
        d, h = probes.n_features, self.n_hidden
        self._check_budget(oracle, d + 1)
        first = probes.informative(min(d + 1, 50), None)
        n_classes = oracle.ask(first).shape[1]
        self.classes_ = self._victim_classes(np.arange(n_classes))
        n_unknown = (d + 1) * h + (h + 1) * n_classes
        n_more = int(min(5 * n_unknown - oracle.n_queries, oracle.affordable))
        rows = first
        if n_more > 0:
            rows = np.concatenate([first, probes.informative(n_more, None)])
        scores = oracle.ask(rows)
        kind = self._score_kind()
        targets = soft_targets(scores, kind)
        (w1, b1, w2, b2), _ = fit_network(
            probes.standardize(rows),
            targets,
            h,
            self.activation,
            probes.rng,
            n_restarts=self.n_restarts,
        )
        w1 = w1 / probes.scale[:, None]
        b1 = b1 - probes.center @ w1
        self.copy_ = network_copy(self.classes_, [w1, w2], [b1, b2], self.activation)
        self.coefs_, self.intercepts_ = self.copy_.coefs_, self.copy_.intercepts_
        error = self.copy_.predict_proba(rows) - targets
        self.residual_ = float(np.abs(error).max())
        if len(rows) * (n_classes - 1) <= n_unknown:
            self.residual_ = np.nan

    def _check_budget(self, oracle, needed):
        if self.max_queries is not None and self.max_queries < needed:
            raise QueryBudgetExceeded(
                f"max_queries={self.max_queries} is not enough: {needed} unknowns per "
                f"class need at least {needed} queries. None were sent."
            )


def _error(logits, scores, kind):
    fitted = soft_targets(logits, "logit")
    return float(np.abs(fitted - soft_targets(scores, kind)).max())


def _pairs(labels, n_pairs, rng):
    """Draw pairs of rows with different labels, every pair of classes about as often."""
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    near, far = [], []
    for _ in range(n_pairs):
        a, b = rng.choice(len(groups), size=2, replace=False)
        near.append(rng.choice(groups[a]))
        far.append(rng.choice(groups[b]))
    return np.array(near), np.array(far)
