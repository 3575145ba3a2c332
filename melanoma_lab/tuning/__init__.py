"""Search for better values of any configuration keys with Keras Tuner, and report the search.

A trial is a run with other values. It is evaluated on train and val; the test split is not used.
"""
