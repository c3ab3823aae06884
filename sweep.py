"""The entry: one run in this process, or with -m a study.

python sweep.py study=quick model=mor budget=1e11          one small run here
python sweep.py -m study=quick                             a small study here, in minutes
python sweep.py -m study=paper launch=plan                 the paper's study, priced
python sweep.py -m budget=5e18 model=mor,vanilla           two of its architectures at 5e18
"""

from __future__ import annotations

from ledger import interrupts

if __name__ == "__main__":
    interrupts.watch()  # before imports that take long

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from ledger.errors import UserError, disk_trouble
from sweeps.inert import refuse_code
from sweeps.mistakes import RunStopped, explain, explain_yaml, flags_first
from sweeps.typed import as_typed

mistakes: list[UserError] = []  # of a single run: Hydra would print its own words before ours


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def app(config: DictConfig) -> None:
    from sweeps.single import run_single

    values = OmegaConf.to_container(config, resolve=False)
    assert isinstance(values, dict)
    typed = {line.split("=")[0].lstrip("+~") for line in HydraConfig.get().overrides.task}
    try:
        run_single({str(key): value for key, value in values.items()}, typed)
    except UserError as mistake:
        mistakes.append(mistake)


def main() -> int:
    """Run the command line: exit code 0, 2 with one sentence for a user's mistake, or 130
    where it was told to stop."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let errors through to the sentence below
    try:
        refuse_code()
        sys.argv[1:] = as_typed(flags_first(sys.argv[1:]))
        app()
    except UserError as mistake:
        mistakes.append(mistake)
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2
    except MarkedYAMLError as error:
        print(f"error: {explain_yaml(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        if not (sentence := disk_trouble(error)):
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; type the same command again to go on from the checkpoints", file=sys.stderr)
        return 130
    for mistake in mistakes:
        if isinstance(mistake, RunStopped):
            print(mistake, file=sys.stderr)
            return 130
        print(f"error: {mistake}", file=sys.stderr)
    return 2 if mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
