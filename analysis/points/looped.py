"""What the joint law needs of a run: parameters met once, parameters of the loop, mean depth.

    U = once + block,  E = once + block x Nr   (layers: unique, effective)
    N_rec = N_nonemb x block / U,  N_once = params - N_rec,  r = mean recursions of a token

from `result.json` (unique_layers, effective_layers, n_params_nonembedding, mean_recursions_train,
and Nr among its settings, or in the run's `config.yaml`); where an old result alone is kept, Nr is
inferred if just one of the paper's layouts (a unique layer at either end, or none) has these layer
counts. Layers are taken
as equally large, which they are; norms and routers (under one part in a thousand) are spread over
them.
"""

from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from analysis.errors import AnalysisError
from analysis.points.run_store import need, number, result_of
from ledger.folder import RunFolder
from ledger.result import Result

NEEDED = ("unique_layers", "effective_layers", "n_params_nonembedding", "mean_recursions_train")


def with_parts(table: pd.DataFrame) -> pd.DataFrame:
    """`table` (points of a run store) with the columns n_once, n_rec and r filled.

    Raises AnalysisError naming the file that does not have them.
    """
    parts = [_parts(Path(row["source"]), row["params"]) for row in table.to_dict("records")]
    once, rec, r = zip(*parts, strict=True)
    return table.assign(n_once=once, n_rec=rec, r=r)


def split_layers(unique: int, effective: int, recursions: int) -> tuple[int, int]:
    """(layers met once, layers of the looped block). 12 and 32 at Nr = 3: (2, 10).

    Raises ValueError where the three numbers belong to no such model.
    """
    if recursions == 1 and effective == unique:
        return unique, 0
    block, odd = divmod(effective - unique, max(1, recursions - 1))
    if recursions < 2 or odd or not 0 < block <= unique:
        raise ValueError(f"{unique} unique and {effective} effective layers at Nr = {recursions}")
    return unique - block, block


def possible_recursions(unique: int, effective: int) -> list[int]:
    """Every Nr with which a block between two unique layers, or a block alone, has these counts."""
    looped = effective - unique
    blocks = [block for block in (unique - 2, unique) if block > 0]
    return [looped // block + 1 for block in blocks if looped > 0 and looped % block == 0]


def _parts(run: Path, params: float) -> tuple[float, float, float]:
    file = RunFolder(run).result_file
    result = result_of(file) or Result()
    need(result, file, *NEEDED)
    unique, effective = result.unique_layers or 0, result.effective_layers or 0
    nonembedding = number(result.n_params_nonembedding)
    r = number(result.mean_recursions_train)
    recursions = _told(result) or _recursions(RunFolder(run).config_file, unique, effective)
    try:
        _, block = split_layers(unique, effective, recursions)
    except ValueError as error:
        raise AnalysisError(
            f"{file} does not fit a looped model ({error}): leave the run out of the joint law."
        ) from error
    looped = nonembedding * block / unique
    return params - looped, looped, r


def _told(result: Result) -> int | None:
    """Nr among the identity settings of a result; a model without recursions has none."""
    model = result.settings.get("model")
    found = model.get("n_recursions") if isinstance(model, dict) else None
    return found if isinstance(found, int) else None


def _recursions(file: Path, unique: int, effective: int) -> int:
    if unique == effective:
        return 1
    possible = possible_recursions(unique, effective)
    if not file.is_file() and len(possible) == 1:
        return possible[0]
    try:
        content: Any = yaml.load(file.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return int(content["model"]["n_recursions"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise AnalysisError(
            f"{file} does not have model.n_recursions ({type(error).__name__}), which the joint "
            "law needs to know looped layers: restore the file, or leave the run out."
        ) from error
