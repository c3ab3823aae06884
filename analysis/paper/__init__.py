"""Every figure and table of the paper: which there are, what feeds each, and how it is written."""
