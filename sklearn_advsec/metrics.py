"""Scorers: robust accuracy and attack success, for `GridSearchCV` and friends.

They take the estimator, so `make_scorer` cannot make them; they are small callables
``scorer(estimator, X, y, sample_weight=None)`` that pickle, that work alone or in a
``scoring={...}`` dict, with any `n_jobs`, and with metadata routing on or off.
"""

import numpy as np
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils.metadata_routing import MetadataRequest
from sklearn.utils.validation import check_is_fitted

__all__ = ["attack_success_scorer", "robust_accuracy_scorer"]


class _Scorer:
    """A callable scorer that takes part in metadata routing."""

    def __init__(self):
        self._sample_weight = None

    def set_score_request(self, *, sample_weight=None):
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

    def get_metadata_routing(self):
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
    def __init__(self, attack):
        super().__init__()
        self.attack = attack

    def __call__(self, estimator, X, y, sample_weight=None):
        check_is_fitted(estimator)
        attack = clone(self.attack).set_params(estimator=FrozenEstimator(estimator))
        return attack.fit(X, y).score(X, y, sample_weight=sample_weight)

    def __repr__(self):
        return f"robust_accuracy_scorer({self.attack!r})"


class _AttackSuccess(_Scorer):
    def __call__(self, estimator, X, y=None, sample_weight=None):
        result = estimator.run(X)
        return float(np.average(result.success, weights=sample_weight))

    def __repr__(self):
        return "attack_success_scorer"


def robust_accuracy_scorer(attack):
    """Make a scorer of the accuracy that is left under an attack.

    Parameters
    ----------
    attack : evasion attack
        A prototype (``estimator=None``), or any attack: a clone of it is set on the
        estimator that is scored. Give its `bounds`: with "data" the box is learned from
        the rows that are scored.

    Returns
    -------
    scorer : callable
        ``scorer(estimator, X, y, sample_weight=None)``, larger is better.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import cross_validate
    >>> from sklearn_advsec.evasion import FastGradientMethod
    >>> from sklearn_advsec.metrics import robust_accuracy_scorer
    >>> X, y = load_iris(return_X_y=True)
    >>> robust = robust_accuracy_scorer(FastGradientMethod(eps=0.5))
    >>> scores = cross_validate(LogisticRegression(max_iter=1000), X, y,
    ...                         scoring={"clean": "accuracy", "robust": robust})
    >>> bool(scores["test_clean"].mean() > scores["test_robust"].mean())
    True
    """
    for name in ("run", "score", "set_params"):
        if not hasattr(attack, name):
            raise TypeError(
                "attack must be an evasion attack, such as "
                f"ProjectedGradientDescent(eps=0.1); got {attack!r}."
            )
    return _RobustAccuracy(attack)


attack_success_scorer = _AttackSuccess()
"""Share of rows whose prediction an evasion attack changes: what tunes an *attack*.

Unlike ``attack.score``, larger is better for the attacker. The victim's own predictions
are attacked.
"""
