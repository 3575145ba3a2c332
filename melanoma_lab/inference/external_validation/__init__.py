"""A kept network on another dataset: whose classes match, what it has seen, what it answers."""
