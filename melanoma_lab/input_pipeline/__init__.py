"""From a dataset to batches: audited, split, decoded and balanced images."""
