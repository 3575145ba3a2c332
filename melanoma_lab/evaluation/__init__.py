"""Metrics and intervals from predicted probabilities: NumPy, pandas, SciPy, scikit-learn only."""
