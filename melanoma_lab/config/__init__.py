"""The configuration: its schema, its checks, and the names it gives to arms."""
