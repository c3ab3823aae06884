"""The W&B server client: connection, key check and error messages."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from analysis.errors import AnalysisError
from ledger.wandb import base_url, hosts_with_the_same_key

TIMEOUT_S = 30


def refuse_without_key() -> None:
    """Raise AnalysisError unless W&B will find a key: in the environment or where login put it."""
    from requests.utils import get_netrc_auth

    hosts = hosts_with_the_same_key(urlsplit(base_url()).netloc)
    addresses = (f"https://{host}" for host in hosts)
    if not os.environ.get("WANDB_API_KEY") and not any(map(get_netrc_auth, addresses)):
        raise AnalysisError(
            f"There is no W&B key for {base_url()}: type `wandb login`, or set WANDB_API_KEY."
        )


def connect() -> Any:
    """The public API. Raises AnalysisError where there is no key or no server."""
    refuse_without_key()
    with one_reason():
        import wandb

        return wandb.Api(overrides={"base_url": base_url()}, timeout=TIMEOUT_S)


@contextmanager
def one_reason() -> Iterator[None]:
    """Raises AnalysisError, one sentence, for whatever client or server have against a request."""
    try:
        yield
    except AnalysisError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:200] or type(error).__name__
        raise AnalysisError(
            f"W&B at {base_url()} did not take the request ({words}): check the names, the key and "
            "the network."
        ) from error
