"""A search over several processes and machines."""
