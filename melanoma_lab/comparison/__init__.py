"""From the tracked runs of a study to a verdict on each arm: no TensorFlow."""
