"""Attacks of a fixed budget, by gradients."""
