"""One training as a tracked run: what it is called, what it prints, what it leaves behind."""
