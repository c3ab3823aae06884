"""From a table of trained runs to exponents, figures and a page that can be traced.

points (one tidy table) -> isoflop (approach 2) -> figures, index. Nothing here imports torch, Hydra
or the packages that train and launch: a fit needs a table and a second.
"""
