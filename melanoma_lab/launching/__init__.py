"""Jobs on Hydra's launchers: parallel jobs on this machine, and the status of all jobs."""
