"""The laws by the name that `fit --law` takes: a new law is a class and a line here."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.fits.parametric.laws import Law

# Where each class stands: names only, so that `--help` imports no NumPy.
LAWS = {
    "chinchilla": "analysis.fits.parametric.laws:Chinchilla",
    "joint": "analysis.fits.parametric.laws:Joint",
}


def law_named(name: str) -> "type[Law]":
    """The class of a law. Raises KeyError for a name that is not registered."""
    module, _, found = LAWS[name].partition(":")
    law: type[Law] = getattr(import_module(module), found)
    return law
