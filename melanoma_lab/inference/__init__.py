"""Applying a kept network to images: which model, which images, and what comes out, as it comes."""
