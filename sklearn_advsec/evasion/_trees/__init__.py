"""Attacks on tree ensembles whose trees are known."""
