"""The figures of a run, and their style."""
