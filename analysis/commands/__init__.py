"""One module a sub-command: its options, help and output; `cli` lists them."""
