"""One module a sub-command: its options, its help and what it prints; `analysis.cli` lists them."""
