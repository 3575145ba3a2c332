"""Networks: architectures, regularisation, augmentation layers, losses, optimizers, schedules."""
