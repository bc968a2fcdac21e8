"""Coordinate search over the thresholds of a tree ensemble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from ._base import TreeAttack

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class TreeCoordinateAttack(TreeAttack):
    r"""Coordinate search over thresholds: a nearly minimal change, in milliseconds.

    An ensemble of trees is constant between its thresholds, so only one point between any
    two matters. Inside of a ball around the row, the column whose move helps most is
    moved, one after another, until the class changes or no move helps; the gain of every
    single move is known at once, because a leaf counts for it exactly if no other column
    keeps the row out of the leaf's box. Several balls are tried side by side, the first
    ones in proportion to a lower bound; at the end every single move of where the climb
    got stuck is tried as a beginning, which finds pairs.

    The result is an upper bound; :class:`TreeExactAttack` proves how far it is from the
    optimum. Its median is the optimum itself on forests and boosters of 100 trees on
    breast_cancer, in about 10 ms a row.

    Missing values stay as they are, and so do categories (text, booleans), unless
    `constraints` let them change: another category is then a change of 1, and values go
    missing where these say that they may. Columns of integers take integers; numbers
    behind encoders and bins are moved to where these tell them apart. A threshold is
    crossed to the next float (of the precision in which the trees compare); `min_step`
    asks for more. LightGBM keeps zero apart from all else by thresholds of 1e-35: against
    its models, set `min_step` to the resolution of the data, or the smallest distance is
    one that no data show.

    Parameters
    ----------
    estimator : classifier, default=None
        The victim; see :class:`EvasionAttack`.
    norm : {np.inf, 1, 2, 0, "inf", "l1", "l2", "l0"}, default=np.inf
        What is to be small: the largest change, their sum, the square root of the sum of
        their squares, or the number of columns changed.
    eps : float, default=None
        The largest distance that counts as a success; None sets no limit.
    min_step : float or array-like of shape (n_features,), default=0.0
        How far beyond a threshold a changed value is put, in the units of the features,
        where the next threshold is not nearer.
    goal : {"misclassification", "targeted"}, default="misclassification"
        What is wanted; see :class:`EvasionAttack`.
    target : class label or array-like of labels, default=None
        The wanted class for ``goal="targeted"``; see :class:`EvasionAttack`.
    bounds : "data", None or tuple (lower, upper), default="data"
        The box that rows stay in; see :class:`EvasionAttack`.
    mask : array-like of bool, default=None
        Which features may change; see :class:`EvasionAttack`.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`EvasionAttack`.
    n_jobs : int, default=None
        Number of parallel jobs; see :class:`EvasionAttack`.
    verbose : int, default=0
        Whether to print progress; see :class:`EvasionAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    ensemble_ : TreeEnsemble
        Its trees.
    grid_ : TreeGrid
        The columns, cut at all thresholds.
    seeds_, seed_labels_ : ndarray of shape (n_seeds, n_features) and (n_seeds,)
        Up to 200 rows of the data seen in `fit`, where a search begins that finds
        nothing from the row itself, and the positions of the victim's answers.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    TypeError
        If the victim is no tree ensemble that can be read, answers otherwise than its
        trees do, or stands behind a step that mixes columns.
    ValueError
        If `min_step` has the wrong shape, or nothing of a row can change.

    See Also
    --------
    TreeExactAttack : Proves that nothing is smaller, in more time.
    sklearn_advsec.trees.certified_radii : Lower bounds for many rows.

    References
    ----------
    .. [1] C. Zhang, H. Zhang, C.-J. Hsieh, "An efficient adversarial attack for tree
       ensembles", arXiv:2010.11598 (the problem, and moves from leaf to leaf; moves from
       cell to cell are ours).

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.preprocessing import minmax_scale
    >>> from sklearn_advsec.evasion import TreeCoordinateAttack
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = minmax_scale(X)
    >>> victim = RandomForestClassifier(n_estimators=20, random_state=0)
    >>> result = TreeCoordinateAttack(victim).fit(X, y).run(X[:20])
    >>> bool(result.success.all()), float(result.distance.mean().round(2))
    (True, 0.1)
    """

    def __init__(
        self,
        estimator: Any = None,
        *,
        norm: float | Literal["inf", "l1", "l2", "l0"] = np.inf,
        eps: float | None = None,
        min_step: ArrayLike = 0.0,
        goal: Literal["misclassification", "targeted"] = "misclassification",
        target: Any = None,
        bounds: Literal["data"] | tuple[ArrayLike, ArrayLike] | None = "data",
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.norm = norm
        self.eps = eps
        self.min_step = min_step
        self.goal = goal
        self.target = target
        self.bounds = bounds
        self.mask = mask
        self.constraints = constraints
        self.n_jobs = n_jobs
        self.verbose = verbose

    def _search_row(self, tree_row):
        flips = self._flips(tree_row.surround(), tree_row.label)
        best = self._coordinate_search(flips, tree_row.label)
        return None if best is None else best.x
