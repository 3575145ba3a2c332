"""Tracking: one MLflow run for each training, even if the training or the server fails."""
