"""Jobs on Hydra's launchers: those at the same time, and their status."""
