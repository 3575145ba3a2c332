"""Training of networks and trivial classifiers: backend, fit, callbacks and checkpoints."""
