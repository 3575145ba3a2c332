"""The configuration: its schema, its validation, and the names of arms."""
