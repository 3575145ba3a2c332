"""A run as a model card for people; what a model says of itself is ``tracking.model_info``."""
