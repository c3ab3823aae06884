"""Address of the W&B server, for tracking and for analysis."""

from __future__ import annotations

import os

HOSTS = ("api.forge.coreweave.com", "api.wandb.ai")  # of one service: its address now and before
PROJECT = "mor-isoflop"


def base_url() -> str:
    """The W&B server: the cloud, or one's own by WANDB_BASE_URL."""
    return os.environ.get("WANDB_BASE_URL", f"https://{HOSTS[0]}").rstrip("/")


def hosts_with_the_same_key(host: str) -> tuple[str, ...]:
    """The hosts under which an API key for a server may be stored."""
    return HOSTS if host in HOSTS else (host,)
