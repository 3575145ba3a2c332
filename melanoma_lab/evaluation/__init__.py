"""From predicted probabilities to metrics and figures: NumPy, pandas, SciPy, scikit-learn only."""
