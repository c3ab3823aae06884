"""Studies: the plan of many runs, its price, the ledger of what is done, and the launch."""
