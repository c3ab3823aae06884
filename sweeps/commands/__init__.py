"""What `python -m sweeps` does with a study or a run, one file for each verb."""
