"""One training as a tracked run: its identity, its steps, its console output and its report."""
