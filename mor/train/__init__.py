"""Training of one run: schedule, meter, optimiser, checkpoints, loop."""
