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
    """

    rows = None


class FittedVictimWarning(UserWarning):
    """A fitted victim was handed over unfrozen, and is trained anew on other rows.

    What is attacked is then another model than the one that was fitted.

    See Also
    --------
    sklearn_advsec.victim.fit_victim : Fits, or keeps, a victim.
    """


class GradientMaskingWarning(UserWarning):
    """A defense seems to hide its gradients: attacks that should be weaker are stronger.

    Its robust accuracy under gradient attacks is then no measure of its robustness.

    See Also
    --------
    sklearn_advsec.metrics.gradient_masking_report : Signs of it.
    """


class InterruptedRunWarning(UserWarning):
    """A user stopped an attack: its result holds a part of the rows.

    See Also
    --------
    sklearn_advsec.evasion.EvasionAttack : Its `run` goes on from what was found.
    """


class NoGradientError(TypeError):
    """A gradient attack was given a victim that has no differentiable view.

    See Also
    --------
    sklearn_advsec.differentiable.supported : What has gradients.
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
    """

    result = None
