"""Audit datasets: find duplicates, leaking splits, contradicting labels and other problems."""
