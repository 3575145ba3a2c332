"""External validation: a saved network on another dataset, without images that it has seen."""
