"""Prepare a dataset for training: read, decode, audit, label, group, split, balance and batch."""
