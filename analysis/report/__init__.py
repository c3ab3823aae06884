"""The report: one self-contained page, from the question to where each number is from."""
