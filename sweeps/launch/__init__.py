"""Backends that carry out a plan: `local` (a bounded pool here) and `slurm`; `plan` only prints."""
