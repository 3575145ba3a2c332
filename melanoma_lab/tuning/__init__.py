"""Searching hyperparameters: the space, the sweep, and its report."""
