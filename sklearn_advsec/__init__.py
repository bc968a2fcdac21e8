"""Attacks on, and defenses of, scikit-learn models and skorch networks."""

__version__ = "0.1.0.dev0"
