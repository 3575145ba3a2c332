"""Randomness of balancing: a stream for every purpose, a seed for every copy."""

from __future__ import annotations

import hashlib

import numpy as np


def make_generator(seed: int, purpose: str, class_index: int) -> np.random.Generator:
    """A stream of its own for one purpose and one class.

    What is drawn for one class does not depend on how many images another class has.

    Args:
        seed: the run's seed, at least 0.
        purpose: what the numbers are for, such as ``"oversample"``.
        class_index: the class they are for.

    Returns:
        A fresh generator at the start of the stream.
    """
    tag = int.from_bytes(purpose.encode(), "big")
    return np.random.default_rng(np.random.SeedSequence([seed, tag, class_index]))


def derive_copy_seed(seed: int, digest: str, number: int) -> int:
    """The seed of one augmented copy.

    Args:
        seed: the run's seed.
        digest: content digest of the original's file.
        number: which copy of that content it is, from 0.

    Returns:
        A number of 128 bits: the first half of a SHA-256.
    """
    text = f"balancing copy/{seed}/{digest}/{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
