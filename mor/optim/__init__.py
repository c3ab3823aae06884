"""Optimizers: a torch-free spec and its module, registered in `spec.OPTIMIZERS`."""
