"""Ensembles: the averaged predictions of several runs of an arm, as a run of their own."""
