"""`python -m analysis`."""

from ledger import interrupts

if __name__ == "__main__":
    interrupts.watch()  # before imports that take long

import gc

from analysis.commands.cli import app

RARELY = 600_000  # objects between collections: points of 10,000 runs are read once and stay alive

if __name__ == "__main__":
    gc.set_threshold(RARELY)
    app(prog_name="python -m analysis")
