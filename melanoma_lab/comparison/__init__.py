"""Compare the arms of a study from its tracked runs; does not need TensorFlow."""
