"""Balancing of the classes of a training split.

``strategies.balance`` finds a strategy by its name and returns a ``BalancedSet``, from which
batches are gathered. Original images are never changed; copies are in the cache folder.
"""
