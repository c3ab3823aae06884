"""The conventions under which FLOPs are counted: a budget is a number under one of them."""

from __future__ import annotations

CONVENTIONS = {
    "paper": "forward only, causal half of attention, GQA ignored, no output head",
    "exact": "forward and backward of every matrix product that is executed",
    "6nd": "6 x non-embedding parameters x tokens",
}
