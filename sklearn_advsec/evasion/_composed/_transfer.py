"""Transfer attacks: craft on a model of one's own, measure on the victim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import clone

from ..._estimators import allows_nan, check_each_fits, name_of, weight_params
from ..._rows import check_weights
from ..._sklearn import _num_samples
from ...victim._fitting import VICTIM, as_victim, fit_victim
from ...victim._validation import check_victim
from ._base import CraftedAttack, MeanClassifier

if TYPE_CHECKING:
    from ...threat import FeatureConstraints


class TransferAttack(CraftedAttack):
    """Transfer attack: the victim is not asked while the rows are crafted.

    An attack of any kind runs on one or several surrogates, and what it makes is shown
    to the victim once. Several surrogates are attacked together, through the mean of
    their log-probabilities. Without `y`, what is attacked are the surrogates' own
    predictions; one query then finds out what the victim said of the unchanged row.

    Attacks that stop at the surrogate's boundary transfer badly: `early_stopping` of
    `attack` is set to False here. Minimum-norm attacks are no good
    prototypes for the same reason.

    Parameters
    ----------
    estimator : classifier, default=None
        The victim; see :class:`EvasionAttack`.
    surrogate : classifier or list of classifier, default=None
        The attacker's own model or models, with the victim's classes. Each is cloned and
        fitted in `fit`; wrap those that are fitted already, such as an extracted copy of
        the victim, as ``FrozenEstimator(surrogate)``. None is a clone of the victim: the
        attacker knows the learning algorithm.
    attack : evasion attack, default=None
        A prototype, whose goal, norm and bounds hold. Gradient attacks need surrogates
        with a view in :mod:`sklearn_advsec.differentiable`. None is
        :class:`ProjectedGradientDescent`.
    mask : array-like of bool, default=None
        Which features may change; see :class:`EvasionAttack`.
    constraints : FeatureConstraints, default=None
        What rows have to keep; see :class:`EvasionAttack`.
    batch_size : int or "auto", default="auto"
        Rows in one call of the victim; see :class:`EvasionAttack`.
    n_jobs : int, default=None
        Number of parallel jobs; see :class:`EvasionAttack`.
    verbose : int, default=0
        Whether to print progress; see :class:`EvasionAttack`.

    Attributes
    ----------
    estimator_ : classifier
        The fitted victim.
    surrogates_ : list of classifier
        The fitted surrogates.
    attack_ : evasion attack
        The attack on them, fitted.
    n_features_in_ : int
        Number of columns seen in `fit`.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, where `X` has string names.

    Raises
    ------
    ValueError
        If a surrogate knows other classes than the victim.
    NoGradientError
        If `attack` needs gradients and a surrogate has none.

    See Also
    --------
    sklearn_advsec.extraction.KnockoffNets : Steals a surrogate.
    SquareAttack : Asks the victim itself.

    References
    ----------
    .. [1] N. Papernot, P. McDaniel, I. Goodfellow, "Transferability in machine learning:
       from phenomena to black-box attacks using adversarial samples", arXiv:1605.07277.
    .. [2] Y. Liu, X. Chen, C. Liu, D. Song, "Delving into transferable adversarial
       examples and black-box attacks", arXiv:1611.02770 (Section 4: ensembles).
    .. [3] Y. Dong et al., "Boosting adversarial attacks with momentum",
       arXiv:1710.06081 (Section 3.3: why to fuse logits rather than probabilities).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.svm import SVC
    >>> from sklearn_advsec.evasion import ProjectedGradientDescent, TransferAttack
    >>> X, y = load_digits(return_X_y=True)
    >>> forest = RandomForestClassifier(n_estimators=20, random_state=0)
    >>> attack = TransferAttack(
    ...     forest, surrogate=[LogisticRegression(max_iter=2000), SVC()],
    ...     attack=ProjectedGradientDescent(eps=4, max_iter=10))
    >>> result = attack.fit(X[:1000], y[:1000]).run(X[1000:1100], y[1000:1100])
    >>> bool(result.success.mean() > 0.5), int(result.n_queries.max())
    (True, 1)
    """

    knowledge = "label"
    _for_regressors = (
        "Attack RegressionVictim(surrogate, delta=...) with early_stopping=False, and "
        "compare the predictions of your regressor for X and X_adv."
    )

    _parameter_constraints = {
        **CraftedAttack._parameter_constraints,
        "surrogate": [*VICTIM, list, tuple, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        surrogate: Any = None,
        attack: Any = None,
        mask: ArrayLike | None = None,
        constraints: FeatureConstraints | None = None,
        batch_size: int | Literal["auto"] = "auto",
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.estimator = estimator
        self.surrogate = surrogate
        self.attack = attack
        self.mask = mask
        self.constraints = constraints
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    bounds = property(lambda self: self._prototype.bounds)

    def _check_parameters(self, row_shape):
        super()._check_parameters(row_shape)
        if isinstance(self.surrogate, (list, tuple)):
            if not self.surrogate:
                raise ValueError("surrogate=[] holds no classifier to craft on.")
            check_each_fits(self.surrogate, "surrogate")
        if self.goal == "confidence_reduction" or self._prototype.confidence is not None:
            raise ValueError(
                "attack has a confidence to reach, which a TransferAttack cannot see: "
                "use goal='misclassification' or 'targeted', and confidence=None."
            )
        self._prototype._check_parameters(row_shape)

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Fit victim and surrogates (frozen ones are kept) and learn the range.

        Parameters
        ----------
        X : {array-like, DataFrame} of shape (n_samples, n_features) or images of shape \
                (n_samples, channels, height, width)
            Data on which victim and surrogates are fitted.
        y : array-like of shape (n_samples,), default=None
            Its labels. Not needed where all are fitted already.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit of the victim only.

        Returns
        -------
        self : object
            The fitted attack.
        """
        super().fit(X, y, sample_weight)
        weights = weight_params(self, check_weights(sample_weight, _num_samples(X)))
        given = self.estimator if self.surrogate is None else self.surrogate
        given = given if isinstance(given, (list, tuple)) else [given]
        self.surrogates_ = [
            # The victim's own recipe is meant to be trained once more.
            clone(as_victim(surrogate)).fit(X, y, **weights)
            if surrogate is self.estimator
            else fit_victim(surrogate, X, y, owner=self)
            for surrogate in given
        ]
        for surrogate in self.surrogates_:
            check_victim(surrogate)
            if not np.array_equal(surrogate.classes_, self.estimator_.classes_):
                raise ValueError(
                    f"surrogate {name_of(surrogate)} knows the classes "
                    f"{np.asarray(surrogate.classes_).tolist()}, the victim "
                    f"{np.asarray(self.estimator_.classes_).tolist()}."
                )
        model = self.surrogates_[0]
        if len(self.surrogates_) > 1:
            model = MeanClassifier(self.surrogates_)
        self.attack_ = self._aim_at(model).fit(X, y)
        return self

    def _attack(self, state):
        # What the victim was asked for where there are no labels stays unused.
        everything = torch.arange(len(state.x_adv), device=state.x_adv.device)
        labelled = state.access.n_total_queries == 0
        self._run_inner(self.attack_, state, everything, labelled=labelled)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        several = isinstance(self.surrogate, (list, tuple))
        surrogates = self.surrogate if several else [self.surrogate]
        tags.input_tags.allow_nan = tags.input_tags.allow_nan and all(
            surrogate is None or allows_nan(surrogate) for surrogate in surrogates
        )
        return tags
