"""Stolen models as differentiable functions: gradient attacks run on the copy."""

import torch

from ..differentiable import ClassifierView, register
from ..differentiable._registry import subview
from ._base import ExtractionAttack
from ._jacobian_substitute import AveragedSurrogates
from ._surrogates import NetSurrogate


@register(ExtractionAttack, takes_codes=True)
def extraction_attack(attack):
    """View an extraction attack: its copy, with a column for each of its classes."""
    return _with_classes(subview(attack.copy_), attack.classes_)


@register(NetSurrogate)
def net_surrogate(copy):
    """View a skorch net that was trained on a victim's answers."""
    view = subview(copy.net_)
    view.classes = copy.classes_
    return view


@register(AveragedSurrogates, takes_codes=True)
def averaged_surrogates(copy):
    """View the mean of several copies; the logits are the log of the mean."""
    members = [_with_classes(subview(m), copy.classes) for m in copy.members]

    def predict_proba(x):
        parts = [torch.softmax(m.logits(x).to(members[0].dtype), dim=1) for m in members]
        return torch.stack(parts).mean(dim=0)

    first = members[0]
    return ClassifierView(
        copy.classes, predict_proba=predict_proba, dtype=first.dtype, device=first.device
    )


def _with_classes(view, classes):
    """Give logits a column for classes that the copy never saw; they never win."""
    have = list(view.classes)
    if have == list(classes):
        return view
    columns = [list(classes).index(label) for label in have]

    def logits(x):
        known = view.logits(x)
        full = torch.full((len(x), len(classes)), -1e9).to(known)
        return full.index_copy(1, torch.tensor(columns, device=known.device), known)

    return ClassifierView(classes, logits=logits, dtype=view.dtype, device=view.device)
