"""Error analysis: a run's most confident decisions with Grad-CAM, and a page of its mistakes."""
