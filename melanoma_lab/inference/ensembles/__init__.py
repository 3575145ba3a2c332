"""Several runs of an arm as one: what their networks answer, averaged."""
