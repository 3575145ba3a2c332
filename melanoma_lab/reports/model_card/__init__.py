"""The model card of a run, for people; ``tracking.logged_model`` is the one for programs."""
