"""The command line: its arguments, its help, and multiruns."""
