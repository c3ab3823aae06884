"""The harness's view of a model: text in, log-likelihoods and text out."""

from __future__ import annotations

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from mor.config import UserError
from mor.data.tokenizer import UNKNOWN, Tokenizer
from mor.evaluate.scoring import Asked, Scored, Scorer, Window, windows

Pair = tuple[list[int], list[int]]  # what stands before, and what is scored
Sampling = dict[str, Any]
MAX_NEW = 256  # tokens of an answer for which the task says nothing, as in the harness
SAMPLED = {"until", "max_gen_toks", "max_new_tokens", "max_tokens", "do_sample", "temperature"}


class HarnessModel(LM):
    """A scorer and its tokenizer. What follows an empty context follows the separator, as the
    first token of a document does in training."""

    def __init__(self, scorer: Scorer, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.scorer, self.tokenizer = scorer, tokenizer
        self.cut = 0  # requests that did not fit the context

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        pairs = [self.pair(*request.args[:2]) for request in requests]
        return [(found.logprob, found.greedy) for found in self._score(pairs)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        start = [self.tokenizer.separator]
        pairs = [(start, self.encode(request.args[0])) for request in requests]
        return [found.logprob for found in self._score(pairs)]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        asked = [self._asked(i, *request.args[:2]) for i, request in enumerate(requests)]
        new = self.scorer.generate([one for one, _ in asked])
        texts = (self.tokenizer.decode(tokens) for tokens in new)
        return [_until(text, ends) for text, (_, ends) in zip(texts, asked, strict=True)]

    # -- text and tokens -----------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        return [int(token) for token in self.tokenizer.encode([text])[0][:-1]]

    def pair(self, context: str, continuation: str) -> Pair:
        """Tokens of both, cut where the context ends if it were encoded alone, before the last
        token at the latest. Spaces at its end go with the continuation, whose first word they are
        part of."""
        spaces = len(context) - len(context.rstrip())
        if spaces and context.strip():
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        if not context:
            return [self.tokenizer.separator], self.encode(continuation)
        whole = self.encode(context + continuation)
        cut = min(len(self.encode(context)), len(whole) - 1)
        return whole[:cut] or [self.tokenizer.separator], whole[cut:]

    def _score(self, pairs: list[Pair]) -> list[Scored]:
        """Log-likelihoods of pairs; a pair that stands several times is scored once."""
        unique = dict.fromkeys((tuple(before), tuple(tokens)) for before, tokens in pairs)
        cut: list[tuple[tuple[tuple[int, ...], tuple[int, ...]], list[Window]]] = [
            (pair, list(windows(*pair, self.scorer.context))) for pair in unique
        ]
        scored = iter(self.scorer.score([window for _, each in cut for window in each]))
        found = {}
        for pair, each in cut:
            parts = [next(scored) for _ in each]
            found[pair] = Scored(sum(p.logprob for p in parts), all(p.greedy for p in parts))
        limit = self.scorer.context + 1
        self.cut += sum(len(before) + len(tokens) > limit for before, tokens in pairs)
        return [found[tuple(before), tuple(tokens)] for before, tokens in pairs]

    # -- generation ----------------------------------------------------------------------------

    def _asked(self, number: int, context: str, given: Sampling) -> tuple[Asked, list[str]]:
        """A request, and the texts that end its answer."""
        unknown = {name for name in given if name not in SAMPLED and given[name] is not None}
        if unknown:
            name = sorted(unknown)[0]
            raise UserError(
                f"tasks: generation_kwargs has {name}={given[name]}; leave it out, "
                f"{', '.join(sorted(SAMPLED))} are read"
            )
        until = given.get("until") or []
        ends = [until] if isinstance(until, str) else list(until)
        limits = (given.get(name) for name in ("max_gen_toks", "max_new_tokens", "max_tokens"))
        n_new = next((int(limit) for limit in limits if limit), MAX_NEW)
        prompt = self.encode(context) or [self.tokenizer.separator]
        temperature = float(given.get("temperature") or 0.0) if given.get("do_sample") else 0.0

        def stop(new: list[int]) -> bool:
            if new[-1] == self.tokenizer.separator:
                return True
            text = self.tokenizer.decode(new).rstrip(
                UNKNOWN
            )  # the beginning of a character, may be
            return _end(text, ends) >= 0

        return Asked(prompt, n_new, stop, temperature, seed=number), ends


def _until(text: str, ends: list[str]) -> str:
    end = _end(text, ends)
    return text if end < 0 else text[:end]


def _end(text: str, ends: list[str]) -> int:
    """Where the first of some ends begins, or -1."""
    return min((at for end in ends if end and (at := text.find(end)) >= 0), default=-1)
