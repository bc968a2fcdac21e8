"""Defenses around a trained classifier: detectors, MagNet, preprocessing of rows."""
