"""Scorers of estimators under attack, of attacks, of copies and of certificates."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.metadata_routing import MetadataRequest
from sklearn.utils.validation import check_is_fitted

from .._estimators import abstain_label
from .._seeding import undisturbed
from .._sklearn import Interval, StrOptions, _safe_indexing, validate_params

if TYPE_CHECKING:
    from ..poisoning import BackdoorTrigger


class _Scorer:
    """A callable scorer that takes part in metadata routing."""

    def __init__(self) -> None:
        self._sample_weight = None

    def set_score_request(self, *, sample_weight: bool | str | None = None) -> Self:
        """Say whether `sample_weight` is wanted when metadata routing is enabled.

        Parameters
        ----------
        sample_weight : bool, str or None, default=None
            As in scikit-learn's metadata routing.

        Returns
        -------
        self : object
            The scorer.
        """
        self._sample_weight = sample_weight
        return self

    def get_metadata_routing(self) -> Any:
        """Return the request for `sample_weight`.

        Returns
        -------
        request : MetadataRequest
            The request.
        """
        request = MetadataRequest(owner=self)
        request.score.add_request(param="sample_weight", alias=self._sample_weight)
        return request

    def _accept_sample_weight(self):  # asked by scoring dicts without metadata routing
        return True


class _RobustAccuracy(_Scorer):
    def __init__(self, attack, X_ref=None, check_masking=False, abstain="handled"):
        super().__init__()
        self.attack = attack
        self.X_ref = X_ref
        self.check_masking = check_masking
        self.abstain = abstain

    def __call__(
        self,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        from ..evasion._base import set_on
        from ..victim import as_victim, ask_labels

        estimator = as_victim(estimator)
        check_is_fitted(estimator)
        if self.check_masking:
            from ._masking import gradient_masking_report

            gradient_masking_report(estimator, X, y, self.attack, X_ref=self.X_ref)
        attack = set_on(self.attack, estimator, X, y, self.X_ref)
        label = abstain_label(estimator)
        if label is None or self.abstain == "wrong":
            return attack.score(X, y, sample_weight=sample_weight)
        y, y_pred = np.asarray(y), attack._run_all(X, y).y_pred
        with undisturbed(estimator):
            clean = ask_labels(estimator, X)
        holds = (clean == y) & ((y_pred == y) | (y_pred == label))
        return float(np.average(holds, weights=sample_weight))

    def __repr__(self):
        return f"robust_accuracy_scorer({self.attack!r})"


class _Fidelity(_Scorer):
    """Share of rows on which copy and victim agree: what tunes an *extraction* attack.

    Labels are not used. The victim is asked about the rows, which is not counted as
    queries.

    See Also
    --------
    attack_success_scorer : Tunes an evasion attack.
    sklearn_advsec.extraction.ExtractionAttack : What is scored.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn_advsec.extraction import EquationSolving
    >>> from sklearn_advsec.metrics import fidelity_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> victim = LogisticRegression(max_iter=1000).fit(X, y)
    >>> thief = EquationSolving(FrozenEstimator(victim))
    >>> cross_val_score(thief, X, scoring=fidelity_scorer, cv=3)
    array([1., 1., 1.])
    """

    def __call__(
        self,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        return estimator.fidelity(X, sample_weight=sample_weight)

    def __repr__(self):
        return "fidelity_scorer"


class _AttackSuccess(_Scorer):
    """Share of rows whose prediction an evasion attack changes: what tunes an *attack*.

    Unlike ``attack.score``, larger is better for the attacker. The victim's own
    predictions are attacked.

    See Also
    --------
    robust_accuracy_scorer : Tunes a victim, or a defense.
    fidelity_scorer : Tunes an extraction attack.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn_advsec.evasion import FastGradientMethod
    >>> from sklearn_advsec.metrics import attack_success_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> victim = LogisticRegression(max_iter=1000).fit(X, y)
    >>> attack = FastGradientMethod(FrozenEstimator(victim))
    >>> search = GridSearchCV(
    ...     attack, {"eps": [0.1, 1.0]}, scoring=attack_success_scorer, cv=3)
    >>> search.fit(X).best_params_
    {'eps': 1.0}
    """

    def __call__(
        self,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        if not hasattr(estimator, "run"):
            raise TypeError(
                "attack_success_scorer scores evasion attacks; to score "
                f"{type(estimator).__name__}, use robust_accuracy_scorer(attack)."
            )
        result = estimator._run_all(X)
        return float(np.average(result.success, weights=sample_weight))

    def __repr__(self):
        return "attack_success_scorer"


class _CertifiedAccuracy(_Scorer):
    def __init__(self, eps, options):
        super().__init__()
        self.eps = eps
        self.options = options

    def __call__(
        self,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        from ..defense import RandomizedSmoothingClassifier, certify
        from ..trees import is_tree_ensemble

        rows = isinstance(estimator, RandomizedSmoothingClassifier)
        if hasattr(estimator, "certify") and not (rows or is_tree_ensemble(estimator)):
            certificate = estimator.certify(X, **self.options)
        else:
            certificate = certify(estimator, X, **{"eps": self.eps, **self.options})
        return certificate.accuracy(y, self.eps, sample_weight)

    def __repr__(self):
        return f"certified_accuracy_scorer({self.eps!r})"


class _BackdoorSuccess(_Scorer):
    def __init__(self, trigger):
        super().__init__()
        self.trigger = trigger

    def __call__(
        self,
        estimator: Any,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
    ) -> float:
        trigger = self.trigger
        if trigger is None:
            trigger = getattr(estimator, "poisoner_", None)
        if not hasattr(trigger, "eligible"):
            raise TypeError(
                "backdoor_success_scorer needs a fitted BackdoorTrigger; without one, it "
                "scores a PoisonedClassifier that was fitted with one, and not "
                f"{type(estimator).__name__}."
            )
        check_is_fitted(trigger)
        at = np.flatnonzero(trigger.eligible(y))
        if not len(at):
            raise ValueError(
                "y holds no row of a class that the trigger is to change: "
                f"{trigger.source_classes_.tolist()}."
            )
        from ..victim import ask_labels

        with undisturbed(estimator):
            y_pred = ask_labels(estimator, trigger.transform(_safe_indexing(X, at)))
        weights = None if sample_weight is None else np.asarray(sample_weight)[at]
        return float(np.average(y_pred == trigger.target_class_, weights=weights))

    def __repr__(self):
        return f"backdoor_success_scorer({self.trigger!r})"


def backdoor_success_scorer(trigger: BackdoorTrigger | None = None) -> Callable[..., Any]:
    """Make a scorer of how often a trigger gives rows the target class.

    Only rows of the trigger's source classes count, never those whose true class is the
    target: a model that predicts these rightly says nothing of the backdoor. What a
    model without poison scores is what stands beside it.

    Parameters
    ----------
    trigger : BackdoorTrigger, default=None
        The fitted trigger. None takes the one with which a
        :class:`~sklearn_advsec.poisoning.PoisonedClassifier` was fitted.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, sample_weight=None)``: the share of rows that get the
        target class with the trigger.

    See Also
    --------
    robust_accuracy_scorer : For changes of rows when the model is asked.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn_advsec.metrics import backdoor_success_scorer
    >>> from sklearn_advsec.poisoning import BackdoorTrigger, PoisonedClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> trigger = BackdoorTrigger({1: 9.9}, target_class=0, budget=0.1, random_state=0)
    >>> poisoned = PoisonedClassifier(DecisionTreeClassifier(random_state=0), trigger)
    >>> scores = cross_validate(poisoned, X, y, scoring={
    ...     "clean": "accuracy", "backdoor": backdoor_success_scorer()})
    >>> bool(scores["test_clean"].mean() > 0.9), float(scores["test_backdoor"].mean())
    (True, 1.0)
    """
    return _BackdoorSuccess(trigger)


@validate_params({"eps": [Interval(Real, 0, None, closed="left")]})
def certified_accuracy_scorer(eps: float, **options: Any) -> Callable[..., Any]:
    """Make a scorer of the accuracy that no attack of a size can take.

    Parameters
    ----------
    eps : float
        The size of the perturbations; for estimators that certify themselves in another
        unit, such as :class:`~sklearn_advsec.poisoning.DeepPartitionAggregation`, how
        many rows an attacker adds or removes.
    **options : dict
        Passed to the estimator's own `certify`, where it has one, or else to
        :func:`~sklearn_advsec.defense.certify`, such as `norm` (np.inf by default; a
        randomized smoothing classifier needs ``norm=2``), `method` and `bounds`.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, sample_weight=None)``, larger is better.

    See Also
    --------
    robust_accuracy_scorer : The bound from the other side.
    sklearn_advsec.defense.certify : Certificates of single rows.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_val_score
    >>> from sklearn_advsec.metrics import certified_accuracy_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> scorer = certified_accuracy_scorer(0.3, norm=2)
    >>> score = cross_val_score(LogisticRegression(max_iter=1000), X, y, scoring=scorer)
    >>> float(score.mean().round(1))
    0.9
    """
    return _CertifiedAccuracy(eps, options)


@validate_params(
    {
        "X_ref": ["array-like", None],
        "abstain": [StrOptions({"handled", "wrong"})],
        "check_masking": ["boolean"],
    }
)
def robust_accuracy_scorer(
    attack: Any,
    *,
    X_ref: ArrayLike | None = None,
    abstain: Literal["handled", "wrong"] = "handled",
    check_masking: bool = False,
) -> Callable[..., Any]:
    """Make a scorer of the accuracy that is left under an attack.

    Where the estimator may abstain (it has an `abstain_label`), a row counts as right if
    the estimator gets the row itself right, and is right about the attacked row or
    abstains: alarms for clean rows are errors, whatever follows [1]_.

    Parameters
    ----------
    attack : evasion attack
        A prototype (``estimator=None``), or any attack: a clone of it is set on the
        estimator that is scored.
    X_ref : {array-like, DataFrame} of shape (n_ref, ...), default=None
        Rows from which the attack learns what it does not know of the data: `bounds` of
        "data", and `eps` in units of a spread. The training rows are meant. None takes
        the rows that are scored, with a warning where these are less than 39 or of some
        of the classes only, as their range holds attacks back.
    abstain : {"handled", "wrong"}, default="handled"
        What an attacked row counts as on which the estimator abstains.
    check_masking : bool, default=False
        Whether to run :func:`gradient_masking_report` too, which warns where the
        gradients of the estimator seem to be masked. It costs a few more attacks.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, sample_weight=None)``, larger is better.

    See Also
    --------
    certified_accuracy_scorer : The accuracy that no attack can take.
    sklearn_advsec.inspection.RobustnessCurveDisplay : The same for growing bounds.

    References
    ----------
    .. [1] F. Tramer, "Detecting adversarial examples is (nearly) as hard as classifying
       them", arXiv:2107.11630 (the robust error with detection).

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn_advsec.evasion import FastGradientMethod
    >>> from sklearn_advsec.metrics import robust_accuracy_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> robust = robust_accuracy_scorer(FastGradientMethod(eps=0.5), X_ref=X)
    >>> scores = cross_validate(LogisticRegression(max_iter=1000), X, y,
    ...                         scoring={"clean": "accuracy", "robust": robust})
    >>> bool(scores["test_clean"].mean() > scores["test_robust"].mean())
    True
    """
    if isinstance(attack, type) or not hasattr(attack, "run"):
        raise TypeError(
            "attack must be an evasion attack, such as "
            f"ProjectedGradientDescent(eps=0.1); got {attack!r}."
        )
    return _RobustAccuracy(attack, X_ref, check_masking, abstain)


attack_success_scorer = _AttackSuccess()
fidelity_scorer = _Fidelity()
