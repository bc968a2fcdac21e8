"""Attacks on tables with feature constraints."""
