"""One run: a function of one resolved configuration (model, data, training, FLOPs)."""
