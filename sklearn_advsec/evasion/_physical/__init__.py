"""Attacks that survive the way from the world to the model."""
