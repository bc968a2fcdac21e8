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
    """

    rows = None


class FittedVictimWarning(UserWarning):
    """A fitted victim was handed over unfrozen, and is trained anew on other rows.

    What is attacked is then another model than the one that was fitted.
    """


class GradientMaskingWarning(UserWarning):
    """A defense seems to hide its gradients: attacks that should be weaker are stronger.

    Its robust accuracy under gradient attacks is then no measure of its robustness.
    """


class InterruptedRunWarning(UserWarning):
    """A user stopped an attack: its result holds a part of the rows."""


class NoGradientError(TypeError):
    """A gradient attack was given a victim that has no differentiable view."""


class QueryBudgetExceeded(RuntimeError):
    """The victim was about to be asked more often than allowed.

    The query that would have gone over the budget was not sent.

    Attributes
    ----------
    result : object or None
        What was found before the budget ran out: an
        :class:`~sklearn_advsec.evasion.EvasionResult` of the rows that were begun.
    """

    result = None
