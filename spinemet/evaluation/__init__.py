"""Predictions joined with labels: measures, ablation, benchmark, their tables and figures."""
