"""Scores by which detectors tell adversarial rows from clean ones."""

import numpy as np
import torch

from .. import differentiable
from .._images import image_shape_of
from ._squeezing import FeatureSqueezing


def answers(defense, array):
    """Return the logarithms of the inner classifier's probabilities on an array."""
    inside, rows = defense.estimator_, defense._inside(array)
    if hasattr(inside, "predict_proba"):
        proba = torch.as_tensor(np.asarray(inside.predict_proba(rows), dtype=np.float64))
        return torch.log(proba.clamp_min(1e-30))
    if not hasattr(inside, "decision_function"):
        raise TypeError(
            f"estimator: {type(inside).__name__} has neither predict_proba nor "
            "decision_function, of which detectors by its answers are made."
        )
    decision = np.asarray(inside.decision_function(rows), dtype=np.float64)
    decision = differentiable.binary_logits(torch.as_tensor(decision))
    return torch.log_softmax(decision, dim=1)


def squeezers_for(X, image_shape):
    """Make the squeezers of a detector, fitted: fewer bits, and a filter for images."""
    squeezers = [FeatureSqueezing(bits=3, image_shape=image_shape)]
    if image_shape_of(X.shape[1:], image_shape) is not None:
        more = FeatureSqueezing(bits=None, window=2, image_shape=image_shape)
        squeezers.append(more)
    return [squeezer.fit(X) for squeezer in squeezers]


def squeezing_score(defense, array, squeezers):
    """Return the largest L1 distance of probabilities on rows and on squeezed rows."""
    plain = answers(defense, array).exp()
    distances = [
        (plain - answers(defense, squeezer.transform(array)).exp()).abs().sum(1)
        for squeezer in squeezers
    ]
    return torch.stack(distances).amax(0).numpy()


def uncertainty_score(defense, array):
    """Return one less the largest probability."""
    return 1 - answers(defense, array).exp().amax(1).numpy()


def jensen_shannon(log_p, log_q, temperature):
    """Return the Jensen-Shannon divergence of two answers at a temperature, per row."""
    log_p, log_q = (torch.log_softmax(a / temperature, 1) for a in (log_p, log_q))
    p, q = log_p.exp(), log_q.exp()
    log_m = torch.log((p + q) / 2)
    return ((p * (log_p - log_m)).sum(1) + (q * (log_q - log_m)).sum(1)) / 2
