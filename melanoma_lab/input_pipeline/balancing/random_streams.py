"""Random numbers of balancing: a generator for every purpose, and a seed for every copy."""

from __future__ import annotations

import hashlib

import numpy as np


def make_generator(seed: int, purpose: str, class_index: int) -> np.random.Generator:
    """Make an independent random generator for one purpose and one class.

    The numbers for a class therefore do not depend on the number of images of other classes.

    Args:
        seed: seed of the run, at least 0.
        purpose: name of the purpose, such as ``"oversample"``.
        class_index: index of the class.

    Returns:
        A new generator.
    """
    tag = int.from_bytes(purpose.encode(), "big")
    return np.random.default_rng(np.random.SeedSequence([seed, tag, class_index]))


def derive_copy_seed(seed: int, digest: str, number: int) -> int:
    """Derive the seed of one augmented copy.

    Args:
        seed: seed of the run.
        digest: digest of the original file's content.
        number: number of the copy among all copies of that content, from 0.

    Returns:
        An integer of 128 bits, the first half of a SHA-256.
    """
    text = f"balancing copy/{seed}/{digest}/{number}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big")
