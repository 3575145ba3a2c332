"""Networks: architectures, regularisation, augmentation layers, optimizers."""
