"""The live page of a study: `python -m sweeps watch --page`."""
