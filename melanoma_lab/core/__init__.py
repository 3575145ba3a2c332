"""Code that every other package may use: errors, console, files, locks, formatting, interrupts."""
