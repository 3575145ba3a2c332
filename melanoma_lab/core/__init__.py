"""What every other part may use: errors, the console, interrupts, files that are not trusted."""
