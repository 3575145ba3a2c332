"""The model card of a run, for people; ``tracking.model_info`` is the one for programs."""
