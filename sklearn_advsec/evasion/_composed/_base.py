"""Classifiers that stand in for the victim while an attack crafts its rows."""

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.frozen import FrozenEstimator

from ... import differentiable
from ..._rows import RowCodec
from ...exceptions import QueryBudgetExceeded


class StandIn(ClassifierMixin, BaseEstimator):
    """Base of fitted stand-ins: what they answer is what their view computes."""

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
        """Do nothing: a stand-in is fitted already."""
        return self

    def __sklearn_is_fitted__(self):
        return True


class MeanClassifier(StandIn):
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
        proba = torch.as_tensor(np.asarray(member.predict_proba(X), dtype=np.float64))
        return torch.log(proba.clamp_min(1e-30))
    if hasattr(member, "decision_function"):
        decision = np.asarray(member.decision_function(X), dtype=np.float64)
        return torch.log_softmax(
            differentiable.binary_logits(torch.as_tensor(decision)), 1
        )
    # Labels alone: a vote.
    vote = np.asarray(member.predict(X))[:, None] == np.asarray(member.classes_)
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


def aimed_at(model, prototype):
    """Clone an attack, set it on a fitted stand-in, and let it take all its steps.

    Rows that just cross the stand-in's boundary are seldom beyond the victim's.
    """
    attack = clone(prototype).set_params(estimator=FrozenEstimator(model))
    if hasattr(attack, "early_stopping"):  # a parameter of some, an attribute of others
        attack.early_stopping = False
    return attack


def craft(attack, state, *, labelled=True, n_calls=0):
    """Run an attack on a stand-in, and let the victim judge what it made.

    Parameters
    ----------
    attack : EvasionAttack
        Fitted, on the stand-in.
    state : AttackState
        The attack on the victim itself.
    labelled : bool, default=True
        Whether the attack is told the labels of `state`; otherwise it moves away from
        what the stand-in says of the rows.
    n_calls : int, default=0
        How many queries of the victim one query of the stand-in is.
    """
    access, goal = state.access, state.goal
    wanted = access.classes[goal.labels.cpu().numpy()]
    labels = dict(y=wanted) if labelled else {}
    if goal.kind == "targeted":
        labels = dict(target=wanted)
    X = access.x.cpu().numpy()
    if access.codec.columns is not None:
        X = access.decode(access.x)
    try:
        result = attack.run(X, **labels)
    except (KeyboardInterrupt, QueryBudgetExceeded) as stop:
        if stop.result is not None:
            _judge(stop.result, state, n_calls)
        raise
    _judge(result, state, n_calls)


def _judge(result, state, n_calls):
    access = state.access
    access.n_queries[result.rows] += n_calls * result.n_queries
    rows = torch.as_tensor(result.rows, device=access.device)
    x_adv = torch.as_tensor(access.codec.encode(result.X_adv)).to(access.x)
    predicted, reached = state.goal.select(rows).ask(access, x_adv, rows)
    state.record(rows, x_adv, predicted, reached)
    state.finished[rows] = True
