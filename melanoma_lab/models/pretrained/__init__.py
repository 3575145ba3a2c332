"""Pretrained weights: find their files, read them without running code, and load them."""
