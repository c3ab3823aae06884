"""What a trained model is worth: validation loss, routing as in training and causal."""
