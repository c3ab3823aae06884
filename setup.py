"""What pyproject.toml cannot say: a wheel carries sweep.py and conf/ inside of `mor.starter`."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

TOP = Path(__file__).resolve().parent


class WithStarter(build_py):
    """Packages, and the entry with its settings beside `mor/starter`."""

    def run(self) -> None:
        """Build; an editable install reads them from the checkout."""
        super().run()
        if self.editable_mode:
            return
        starter = Path(self.build_lib) / "mor" / "starter"
        shutil.rmtree(starter / "conf", ignore_errors=True)
        shutil.copytree(
            TOP / "conf", starter / "conf", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copyfile(TOP / "sweep.py", starter / "sweep.py")


setup(cmdclass={"build_py": WithStarter})
