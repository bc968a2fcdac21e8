"""The errors and warnings of this package."""

__all__ = [
    "BadAnswerError",
    "FittedVictimWarning",
    "GradientMaskingWarning",
    "InterruptedRunWarning",
    "NoGradientError",
    "QueryBudgetExceeded",
]


class BadAnswerError(ValueError):
    """The victim's answer is none: not finite, of the wrong shape, an unknown label.

    Attributes
    ----------
    rows : ndarray of int or None
        The rows that it was bad for, where it is not bad as a whole.

    See Also
    --------
    sklearn_advsec.victim.AnswerCheck : What is checked.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn_advsec.exceptions import BadAnswerError
    >>> from sklearn_advsec.victim import ask_scores
    >>> class Broken:
    ...     def predict_proba(self, X):
    ...         return np.array([[0.2, 0.8], [np.nan, np.nan]])
    >>> try:
    ...     ask_scores(Broken(), np.zeros((2, 3)))
    ... except BadAnswerError as error:
    ...     print(error.rows)
    [1]
    """

    rows = None


class FittedVictimWarning(UserWarning):
    """A fitted victim was handed over unfrozen, and is trained anew on other rows.

    What is attacked is then another model than the one that was fitted.

    See Also
    --------
    sklearn_advsec.victim.fit_victim : Fits, or keeps, a victim.

    Examples
    --------
    >>> import warnings
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.evasion import TreeCoordinateAttack
    >>> from sklearn_advsec.exceptions import FittedVictimWarning
    >>> X, y = load_iris(return_X_y=True)
    >>> model = DecisionTreeClassifier().fit(X[::2], y[::2])
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     attack = TreeCoordinateAttack(model).fit(X, y)  # trains another model
    >>> caught[0].category is FittedVictimWarning
    True
    """


class GradientMaskingWarning(UserWarning):
    """A defense seems to hide its gradients: attacks that should be weaker are stronger.

    Its robust accuracy under gradient attacks is then no measure of its robustness.

    See Also
    --------
    sklearn_advsec.metrics.gradient_masking_report : Signs of it.

    Examples
    --------
    >>> import warnings
    >>> from sklearn_advsec.exceptions import GradientMaskingWarning
    >>> with warnings.catch_warnings():  # where it is known
    ...     warnings.simplefilter("ignore", GradientMaskingWarning)
    """


class InterruptedRunWarning(UserWarning):
    """A user stopped an attack: its result holds a part of the rows.

    See Also
    --------
    sklearn_advsec.evasion.EvasionAttack : Its `run` goes on from what was found.

    Examples
    --------
    >>> import warnings
    >>> from sklearn_advsec.exceptions import InterruptedRunWarning
    >>> with warnings.catch_warnings():  # a part is enough
    ...     warnings.simplefilter("ignore", InterruptedRunWarning)
    """


class NoGradientError(TypeError):
    """A gradient attack was given a victim that has no differentiable view.

    See Also
    --------
    sklearn_advsec.differentiable.supported : What has gradients.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from sklearn_advsec.evasion import ProjectedGradientDescent
    >>> from sklearn_advsec.exceptions import NoGradientError
    >>> X, y = load_iris(return_X_y=True)
    >>> try:
    ...     attack = ProjectedGradientDescent(DecisionTreeClassifier()).fit(X, y)
    ... except NoGradientError as error:
    ...     print("TreeCoordinateAttack" in str(error))  # what works instead
    True
    """


class QueryBudgetExceeded(RuntimeError):
    """The victim was about to be asked more often than allowed.

    The query that would have gone over the budget was not sent.

    Attributes
    ----------
    result : object or None
        What was found before the budget ran out: an
        :class:`~sklearn_advsec.evasion.EvasionResult` of the rows that were begun.

    See Also
    --------
    sklearn_advsec.evasion.EvasionAttack : Keeps what was found in ``exception.result``.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from sklearn_advsec.evasion import HopSkipJump
    >>> from sklearn_advsec.exceptions import QueryBudgetExceeded
    >>> X, y = load_iris(return_X_y=True)
    >>> attack = HopSkipJump(KNeighborsClassifier(), max_total_queries=200).fit(X, y)
    >>> try:
    ...     result = attack.run(X[:5], y[:5])
    ... except QueryBudgetExceeded as error:
    ...     result = error.result
    >>> result.n_queries.sum() <= 200
    np.True_
    """

    result = None
