"""Defenses that change how the classifier is trained."""
