"""The command line: its arguments, its help, and several jobs of one command."""
