"""Compositions of attacks: running an inner attack, and surrogates to craft on."""

from dataclasses import replace

import numpy as np
import torch
from sklearn.base import ClassifierMixin, clone, is_regressor
from sklearn.frozen import FrozenEstimator

from ... import differentiable
from ..._rows import RowCodec
from ..._sklearn import BaseEstimator, HasMethods, _safe_indexing
from ...victim import ask_labels, ask_scores
from ...victim._fitting import as_victim
from .._base import EvasionAttack, shared
from .._gradient._projected_gradient import ProjectedGradientDescent


class Surrogate(ClassifierMixin, BaseEstimator):
    """Base of classifiers made of fitted ones: they answer what their view computes."""

    def predict_proba(self, X):
        """Return probabilities, of shape (n_rows, n_classes)."""
        codec = RowCodec(X)
        view = differentiable.view(self, codec.columns)
        with torch.no_grad():
            x = torch.as_tensor(codec.encode(X)).to(view.device, view.dtype)
            return torch.softmax(view.logits(x), dim=1).cpu().numpy()

    def predict(self, X):
        """Return the labels of the largest probabilities."""
        return self.classes_[self.predict_proba(X).argmax(1)]

    def fit(self, X, y=None):
        """Do nothing: it is fitted already."""
        return self

    def __sklearn_is_fitted__(self):
        return True


class MeanClassifier(Surrogate):
    """The mean of the log-probabilities of several fitted classifiers.

    Parameters
    ----------
    members : list of classifier
        Fitted, on the same classes. Where one has no differentiable view, the mean has
        none either, and is made of what the members' own methods answer.
    """

    def __init__(self, members):
        self.members = members

    @property
    def classes_(self):
        """The classes of the members."""
        return np.asarray(self.members[0].classes_)

    def predict_proba(self, X):
        """Return the normalised geometric mean of the members' probabilities."""
        mean = sum(_log_probability(member, X) for member in self.members)
        return torch.softmax(mean / len(self.members), dim=1).numpy()


def _log_probability(member, X):
    if hasattr(member, "predict_proba"):
        proba = torch.as_tensor(ask_scores(member, X).astype(np.float64))
        return torch.log(proba.clamp_min(1e-30))
    if hasattr(member, "decision_function"):
        decision = ask_scores(member, X, "decision_function").astype(np.float64)
        return torch.log_softmax(
            differentiable.binary_logits(torch.as_tensor(decision)), 1
        )
    # Labels alone: a vote.
    vote = ask_labels(member, X)[:, None] == np.asarray(member.classes_)
    return torch.as_tensor(np.where(vote, 0.0, -1.0))


@differentiable.register(MeanClassifier, takes_codes=True)
def mean_classifier(estimator):
    """View the mean of the members' log-probabilities."""
    views = [differentiable.view(member) for member in estimator.members]

    def logits(x):
        mean = sum(torch.log_softmax(view.logits(x).to(x), dim=1) for view in views)
        return mean / len(views)

    dtypes = {view.dtype for view in views}
    return differentiable.ClassifierView(
        estimator.classes_,
        logits=logits,
        dtype=torch.float64 if len(dtypes) > 1 else dtypes.pop(),
        device=views[0].device,
    )


class ComposedAttack(EvasionAttack):
    """Base of the attacks that run other attacks.

    What an inner attack makes is recorded by `_record`, also where it was stopped.
    """

    # What to do instead, where the victim is a regressor.
    _for_regressors = ""

    _parameter_constraints = {
        **EvasionAttack._parameter_constraints,
        **shared("batch_size"),
    }

    def _check_parameters(self, row_shape):
        super()._check_parameters(row_shape)
        if is_regressor(as_victim(self.estimator)):
            raise TypeError(
                f"{type(self).__name__} puts attacks together by what they say of "
                f"classes, and takes no RegressionVictim. {self._for_regressors}"
            )

    def _run_inner(self, attack, state, rows, *, labelled=True, **changes):
        """Run an attack on some rows, and record what it made of them.

        Parameters
        ----------
        attack : EvasionAttack
            Fitted.
        state : AttackState
            The attack on the victim itself.
        rows : tensor of int64, shape (n,)
            Which of its rows.
        labelled : bool, default=True
            Whether the attack is told the labels of `state`; otherwise it moves away from
            its own victim's predictions.
        **changes : dict
            The seed and the budgets of the inner run; see :class:`Chunk`.
        """
        access, goal = state.access, state.goal
        labels = access.classes[goal.labels[rows].cpu().numpy()]
        y = labels if labelled and goal.kind != "targeted" else None
        target = labels if goal.kind == "targeted" else None
        X = _safe_indexing(access.X, rows.cpu().numpy())
        changes["on_bad_answer"] = "skip" if access.skips else "raise"
        work = replace(attack._rows_to_attack(X, y, target), **changes)
        result = None
        try:
            result = attack._run(work, on_query=access.on_query)
        except BaseException as stop:
            result = getattr(stop, "result", None)
            raise
        finally:
            if result is not None:
                access.skipped[rows.cpu().numpy()[result.rows]] |= result.skipped
                self._record(state, rows, result)

    def _record(self, state, rows, result):
        """Record the result of an inner attack on some rows."""
        raise NotImplementedError


class CraftedAttack(ComposedAttack):
    """Base of the attacks that craft rows on a surrogate, and show them to the victim.

    Attributes
    ----------
    attack_ : EvasionAttack
        The attack on the surrogate, fitted.
    """

    _parameter_constraints = {
        **ComposedAttack._parameter_constraints,
        "attack": [HasMethods(["fit", "run"]), None],
    }

    # How many queries of the victim one query of the surrogate is.
    _n_calls = 0

    @property
    def _prototype(self):
        if self.attack is None:
            return ProjectedGradientDescent(random_state=0)
        return self.attack

    # What the attack in use says, holds for the whole.
    norm = property(lambda self: self._prototype.norm)
    goal = property(lambda self: self._prototype.goal)
    target = property(lambda self: self._prototype.target)

    def _learns_range(self):
        return super()._learns_range() or self._prototype.eps_unit != "feature"

    def _aim_at(self, surrogate):
        """Clone the attack, set it on a surrogate, and let it take all its steps.

        Rows that just cross the surrogate's boundary are seldom beyond the victim's.
        """
        attack = clone(self._prototype).set_params(estimator=FrozenEstimator(surrogate))
        if self.constraints is not None:
            attack.set_params(constraints=self.constraints)
        if "bounds" in attack.get_params(deep=False):
            attack.set_params(bounds=self._bounds())
        if self.mask is not None:
            attack.set_params(mask=self.mask)
        # A parameter of some attacks, an attribute of others.
        if hasattr(attack, "early_stopping"):
            attack.early_stopping = False
        return attack

    def _record(self, state, rows, result):
        access, n_queries = state.access, self._n_calls * result.n_queries
        access.n_queries[rows.cpu().numpy()[result.rows]] += n_queries
        result = result.select(result.finished)
        rows = rows[torch.as_tensor(result.rows)]
        x_adv = access.encode(result.X_adv)
        predicted, reached = state.goal.select(rows).ask(access, x_adv, rows)
        state.record(rows, x_adv, predicted, reached)
        state.finished[rows] = True
