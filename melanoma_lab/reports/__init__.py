"""What all reports share: their look, their templates' parts, and how their files are written."""
