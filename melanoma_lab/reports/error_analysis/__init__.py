"""Images that a run got right and wrong, to look at: which, where the network looked, as a page."""
