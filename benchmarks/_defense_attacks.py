"""Judging defenses: every kind of attack, and one that knows the defense."""

import json

import _common as common
import numpy as np
import torch
from sklearn.frozen import FrozenEstimator

from sklearn_advsec import differentiable
from sklearn_advsec.defense import AdversarialDetector, MagNet
from sklearn_advsec.defense._reactive._magnet import jensen_shannon
from sklearn_advsec.evasion import (
    AutoAttack,
    AutoProjectedGradientDescent,
    ExpectationOverTransformation,
    GaussianNoise,
    ProjectedGradientDescent,
    SquareAttack,
    TransferAttack,
)

BOX = (0, 1)


class Measured(dict):
    """Rows of a table by name, kept in a file so that a long one may be resumed."""

    def __init__(self, name, resume):
        self.path = common.CACHE / f"{name}.json"
        keep = resume and self.path.exists()
        super().__init__(json.loads(self.path.read_text()) if keep else {})

    def __setitem__(self, name, row):
        super().__setitem__(name, row)
        self.path.parent.mkdir(exist_ok=True)
        self.path.write_text(json.dumps(self))


def crafted(attack, victim, X, y):
    """Return the rows that an attack makes of `X` on a fitted victim."""
    return attack.set_params(estimator=FrozenEstimator(victim)).fit(X, y).run(X, y).X_adv


def handled(model, X, y):
    """Tell which rows are predicted right, or detected."""
    right = np.asarray(model.predict(X)) == y
    return right | model.detect(X) if hasattr(model, "detect") else right


def clean_accuracy(model, X, y):
    """Share of rows predicted right and raising no alarm."""
    right = np.asarray(model.predict(X)) == y
    if hasattr(model, "detect"):
        right = right & ~model.detect(X)
    return float(right.mean())


def inner_of(model):
    """Return the classifier that an attacker finds who does not know the defense."""
    if hasattr(model, "steps"):
        return model.steps[-1][1]
    return getattr(model, "estimator_", model) if hasattr(model, "detect") else model


def judge(model, X, y, *, eps, surrogate, image_shape=None, noise=None):
    """Measure a defense by every kind of attack.

    Parameters
    ----------
    model : classifier
        Fitted.
    X, y : ndarray
        Rows in [0, 1], and labels.
    eps : float
        Linf bound.
    surrogate : classifier
        Fitted, undefended: what attacks are transferred from.
    image_shape : tuple, optional
        What a flat row is.
    noise : float, optional
        The defense's own noise, for which gradients are averaged.

    Returns
    -------
    columns : dict of str to float
        Accuracies; a detected row counts as handled under attack, and as lost without.
    """
    pgd = dict(eps=eps, bounds=BOX, random_state=0, random_start=True)
    attacks = {
        "PGD-20": ProjectedGradientDescent(max_iter=20, **pgd),
        "Square": SquareAttack(
            eps=eps, bounds=BOX, max_queries=1000, image_shape=image_shape
        ),
        "transfer": TransferAttack(
            surrogate=FrozenEstimator(surrogate),
            attack=ProjectedGradientDescent(max_iter=40, **pgd),
        ),
        "AutoAttack": AutoAttack(
            eps=eps, bounds=BOX, square_queries=500, max_iter=50, image_shape=image_shape
        ),
    }
    held = {}
    unaware = ProjectedGradientDescent(max_iter=20, **pgd)
    X_adv = crafted(unaware, inner_of(model), X, y)
    held["unaware"] = handled(model, X_adv, y)
    for name, attack in attacks.items():
        held[name] = handled(model, crafted(attack, model, X, y), y)
    worst = np.logical_and.reduce(list(held.values()))
    for attack in adaptive_attacks(eps, noise):
        rows = np.flatnonzero(worst)
        if len(rows):
            X_adv = crafted(attack, model, X[rows], y[rows])
            worst[rows] = handled(model, X_adv, y[rows])
    if hasattr(model, "detect"):
        for weight in (0.1, 1.0, 10.0):
            X_adv = detector_aware(model, X, y, eps, weight)
            worst &= handled(model, X_adv, y)
    columns = {"clean": clean_accuracy(model, X, y)}
    columns |= {name: float(right.mean()) for name, right in held.items()}
    return columns | {"adaptive": float(worst.mean())}


def adaptive_attacks(eps, noise):
    """Long attacks with restarts, and averages over a defense's own noise."""
    if noise is not None:
        yield ExpectationOverTransformation(
            attack=ProjectedGradientDescent(eps=eps, max_iter=30, bounds=BOX),
            transformations=[GaussianNoise(noise)],
            n_samples=10,
        )
    yield ProjectedGradientDescent(
        eps=eps,
        step_size=eps / 10,
        max_iter=200,
        n_restarts=5,
        loss="margin",
        bounds=BOX,
        random_start=True,
        random_state=1,
    )
    yield AutoProjectedGradientDescent(
        eps=eps, loss="dlr", n_restarts=3, bounds=BOX, random_state=1
    )


def detector_aware(model, X, y, eps, weight, steps=200):
    """Attack classifier, reformer and detectors together, within Linf `eps`.

    Carlini and Wagner 2017 (arXiv:1705.07263, arXiv:1711.08478): the attacker knows them
    all. Adam descends the label's margin plus `weight` times how far each detector's
    score is above its threshold, less a tenth. Signed steps would not do: they move every
    pixel, which is what reconstruction errors see.
    """
    view = differentiable.view(model)
    classes = np.asarray(model.classes_)
    labels = torch.as_tensor(np.searchsorted(classes, y), device=view.device)
    x = torch.as_tensor(X, dtype=view.dtype, device=view.device)
    lower, upper = (x - eps).clamp(*BOX), (x + eps).clamp(*BOX)
    x_adv = x.clone().requires_grad_()
    best, found = x.clone(), torch.zeros_like(labels, dtype=torch.bool)
    excess = detector_excess(model, view)
    optimizer = torch.optim.Adam([x_adv], lr=0.01)
    for _ in range(steps):
        logits = view.logits(x_adv)
        over = torch.stack(list(excess(x_adv, logits)))
        own = logits.gather(1, labels[:, None])[:, 0]
        other = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        loss = (own - other).clamp_min(-1) + weight * (over + 0.1).clamp_min(0).sum(0)
        (x_adv.grad,) = torch.autograd.grad(loss.sum(), x_adv)
        with torch.no_grad():
            wins = (other > own) & (over.amax(0) < 0) & ~found
            best[wins], found = x_adv[wins], found | wins
            optimizer.step()
            x_adv.copy_(x_adv.clamp(lower, upper))
    return best.cpu().numpy().astype(X.dtype)


def detector_excess(model, view):
    """Return a function of rows and logits: each score over its threshold, less one."""
    if isinstance(model, MagNet):
        inside = differentiable.view(model.estimator_)
        limits = model.thresholds_

        def excess(x, logits):
            scaled = model._scaled(x)
            for (name, power), module in zip(
                (("l2", 2), ("l1", 1)), model.autoencoders_, strict=True
            ):
                if name in limits:
                    error = (module(scaled) - scaled).flatten(1).abs().pow(power).mean(1)
                    yield error.to(x) / limits[name] - 1
            plain = inside.logits(x)
            for temperature in model.temperatures:
                limit = limits.get(f"jsd {temperature}")
                if limit is not None:
                    yield jensen_shannon(plain, logits, temperature) / limit - 1

        return excess
    assert isinstance(model, AdversarialDetector) and model.detector == "squeezing"
    squeezers = [differentiable.view(squeezer) for squeezer in model.detector_]

    def excess(x, logits):
        plain = torch.softmax(logits, 1)
        for squeezer in squeezers:
            squeezed = torch.softmax(view.logits(squeezer.transform(x)), 1)
            yield (plain - squeezed).abs().sum(1) / model.threshold_ - 1

    return excess
