"""Architectures, trivial classifiers, augmentation, losses, optimizers, schedules and Grad-CAM."""
