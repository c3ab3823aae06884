"""The one error that a user of `analysis` meets."""


class AnalysisError(Exception):
    """One sentence: which setting or file, what it holds, and what to do about it."""
