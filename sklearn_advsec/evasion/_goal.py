"""Adversarial goals, their losses, and when a row has reached them."""

import torch
from torch.nn.functional import cross_entropy

from ..victim._answers import ABSTAINED

GOALS = ("misclassification", "targeted", "confidence_reduction")


def margin(logits, labels):
    """Largest other logit less the one of `labels`: positive when another class wins."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.amax(1) - own[:, 0]


def dlr(logits, labels):
    """Difference of logits ratio: the margin over the first logit less the third.

    Croce and Hein 2020 (arXiv:2003.01690), equation (6): it does not change when the
    logits are scaled. Two classes have no third logit; there it is the margin itself.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2]).clamp_min(1e-12)


def targeted_dlr(logits, labels, toward):
    """Equation (7) there: how far the logit of `toward` is above that of the label."""
    own = logits.gather(1, labels[:, None])[:, 0]
    difference = logits.gather(1, toward[:, None])[:, 0] - own
    if logits.shape[1] < 3:
        return difference
    top = logits.topk(min(4, logits.shape[1]), dim=1).values
    return difference / (top[:, 0] - top[:, 2:].mean(1)).clamp_min(1e-12)


def unsaturated_cross_entropy(logits, labels):
    """Cross-entropy, and the margin, which is negative, where it is 0 to rounding.

    There its gradient is lost: an attack would not move, and the victim look robust.
    """
    loss = cross_entropy(logits, labels, reduction="none")
    # To look whether there is any such row would stall a GPU.
    if not loss.is_cuda and bool((loss > 0).all()):
        return loss
    return torch.where(loss > 0, loss, margin(logits, labels))


# Each grows as the victim moves away from the label.
LOSSES = {
    "cross_entropy": unsaturated_cross_entropy,
    "margin": margin,
    "dlr": dlr,
}


class Goal:
    """The goal of an attack on some rows.

    Parameters
    ----------
    kind : {"misclassification", "targeted", "confidence_reduction"}
        What is wanted (Papernot et al. 2015, the taxonomy's goals).
    labels : tensor of int64, shape (n_rows,)
        Where to go to for "targeted", else where to get away from; positions in the
        victim's classes.
    confidence : float or None
        The probability that the wanted class has to reach. For "confidence_reduction",
        the one that the label's class has to fall to; None stands for 0.5.
    loss : callable
        Grows as the victim moves away from a label.
    toward : tensor of int64, shape (n_rows,), optional
        Classes on the way to which the label is left; `loss` then takes them too.
    """

    def __init__(
        self,
        kind,
        labels,
        *,
        confidence=None,
        loss=LOSSES["cross_entropy"],
        toward=None,
    ):
        if kind == "confidence_reduction" and confidence is None:
            confidence = 0.5
        self.kind = kind
        self.labels = labels
        self.confidence = confidence
        self.loss = loss
        self.toward = toward

    def select(self, index):
        """Return the same goal for some of the rows."""
        return Goal(
            self.kind,
            self.labels[index],
            confidence=self.confidence,
            loss=self.loss,
            toward=None if self.toward is None else self.toward[index],
        )

    def objective(self, logits, at=slice(None)):
        """Return what the attack maximises, one value per row."""
        labels = self.labels[at]
        if self.toward is not None:
            return self.loss(logits, labels, self.toward[at])
        if self.kind == "targeted":
            return -self.loss(logits, labels)
        if self.kind == "misclassification" and self.confidence is not None:
            # Which class wins has to be made up: the one that is ahead of the others.
            others = logits.detach().scatter(1, labels[:, None], -torch.inf)
            return -self.loss(logits, others.argmax(1))
        return self.loss(logits, labels)

    def reached_by_labels(self, predicted):
        """Whether predictions fulfil a goal that has no `confidence`."""
        same = predicted == self.labels
        # A victim that abstains was not led anywhere.
        return same if self.kind == "targeted" else ~same & (predicted != ABSTAINED)

    def reached_by_probability(self, proba):
        """Whether probabilities fulfil the goal with its `confidence`."""
        own = proba.gather(1, self.labels[:, None])[:, 0]
        if self.kind == "confidence_reduction":
            return own <= self.confidence
        if self.kind == "targeted":
            return own >= self.confidence
        others = proba.scatter(1, self.labels[:, None], 0.0)
        return others.amax(1) >= self.confidence

    def reached(self, logits):
        """Whether logits fulfil the goal."""
        if self.confidence is None:
            return self.reached_by_labels(logits.argmax(1))
        return self.reached_by_probability(torch.softmax(logits, dim=1))

    def ask(self, access, x, rows):
        """Ask the victim itself: its labels, and whether they fulfil the goal."""
        if self.confidence is None:
            predicted = access.predict(x, rows)
            return predicted, self.reached_by_labels(predicted)
        proba = access.scores(x, rows)
        predicted = proba.argmax(1)
        # Scores do not always tell the label; the last query is for where a row ends.
        if not access.decisive and access.affordable(rows) > 1:
            predicted = access.predict(x, rows)
        return predicted, self.reached_by_probability(proba) & (predicted != ABSTAINED)


def likeliest_others(state, n_targets):
    """Ask for logits; yield, one after another, the classes nearest to each row's own."""
    access, goal = state.access, state.goal
    rows = state.open_rows()
    if not len(rows) or access.affordable(rows) < 1:
        return
    logits = access.logits(access.x[rows], rows)
    order = rank_others(logits, goal.labels[rows])
    for k in range(min(n_targets, order.shape[1])):
        toward = torch.zeros_like(goal.labels)
        toward[rows] = order[:, k]
        yield toward


def rank_others(logits, labels):
    """Classes other than the label, the one of the largest logit first."""
    others = logits.detach().scatter(1, labels[:, None], -torch.inf)
    return others.argsort(dim=1, descending=True, stable=True)[:, :-1]
