"""Searching for better values of any keys of the configuration, with Keras Tuner, and its report.

A trial is a run with other values, measured on train and val; the test split is left alone.
"""
