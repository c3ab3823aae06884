"""Launch, fit, suggest, launch again: `python -m sweeps autopilot`."""
