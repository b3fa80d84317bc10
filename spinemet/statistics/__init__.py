"""Measures, intervals and comparisons: pure functions."""
