"""Training: the backend, what an epoch draws, the fit, its progress."""
