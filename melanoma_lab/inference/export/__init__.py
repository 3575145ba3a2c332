"""Export trained networks for programs without melanoma_lab, Keras or TensorFlow."""
