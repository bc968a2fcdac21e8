"""Attacks on, and defenses of, scikit-learn models and skorch networks."""

from ._show_versions import show_versions

__version__ = "0.1.0.dev0"

__all__ = ["__version__", "show_versions"]
