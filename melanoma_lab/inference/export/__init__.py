"""A trained network for programs without the lab, without Keras, or without TensorFlow."""
