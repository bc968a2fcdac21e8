"""Defenses: meta-estimators that make the classifier inside harder to attack."""

from ._adversarial_training import AdversarialTrainingClassifier

__all__ = ["AdversarialTrainingClassifier"]
