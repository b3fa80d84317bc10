"""Thin adapters: the only library files that import ray."""
