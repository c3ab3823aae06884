"""The paper's published numbers: the isoFLOP runs as tidy points, the other tables as printed."""

from pathlib import Path

import pandas as pd

from analysis.points.table import PointSet, tidy

FOLDER = Path(__file__).parent
PAPER = "arXiv 2507.10524v3"
TABLE9 = FOLDER / "table9_isoflop.csv"
TABLE9_SOURCE = f"{PAPER}, Table 9"


def load_table9() -> PointSet:
    """The 36 isoFLOP runs of Mixture-of-Recursions: 3 architectures x 4 base sizes x 3 budgets.

    `loss` is the paper's validation loss (nats per token), `params` its non-embedding parameters,
    `budget` FLOPs under the paper's convention (forward pass only).
    """
    names = {
        "arch": "model",
        "base": "size",
        "flops_stated": "budget",
        "n_nonemb": "params",
        "val_nll": "loss",
    }
    table = pd.read_csv(TABLE9).rename(columns=names)
    table = table.assign(convention="paper", source=TABLE9_SOURCE)
    return PointSet(tidy(table), TABLE9_SOURCE, params="nonembedding")


def load_published(name: str) -> pd.DataFrame:
    """A published table by its file name, every cell as the text that is printed in the paper."""
    return pd.read_csv(FOLDER / f"{name}.csv", dtype=str, keep_default_na=False)
