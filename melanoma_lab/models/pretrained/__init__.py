"""Weights that somebody else trained: found, read without running anything, put into networks."""
