"""Our language model behind transformers' interface. Design notes:

- routing is that of inference in every call: a token takes the recursions that it takes in our
  causal forward pass, with or without a cache;
- `generate` keeps our own caches (`MorCache`), whose length differs between recursions, in place of
  a DynamicCache; tokens of a prompt are fed one by one;
- padding stands in front of sequences, as `generate` asks for it: they are run without it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from mor.hf.cache import MorCache, padding_of
from mor.hf.configuration import MorConfig
from mor.model.digests import refuse_changed
from mor.model.transformer import Transformer

IGNORED = -100  # the label of what is not scored


class MorForCausalLM(PreTrainedModel, GenerationMixin):
    """Vanilla, recursive, looped, Mixture-of-Depths and Mixture-of-Recursions models."""

    config_class = MorConfig
    base_model_prefix = "transformer"
    main_input_name = "input_ids"

    def __init__(self, config: MorConfig) -> None:
        super().__init__(config)
        shape = config.shape
        self.transformer = Transformer(
            shape.model, shape.size, shape.vocab_size, shape.seed, separator=shape.separator
        )
        self.post_init()

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any
    ) -> Any:
        """As transformers does it; of a folder, the digests first. Raises ExchangeError."""
        folder = Path(str(pretrained_model_name_or_path)) / (kwargs.get("subfolder") or "")
        refuse_changed(folder)
        return super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        """Drawn by the model itself."""

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer.embed

    def get_output_embeddings(self) -> None:
        return None

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False

    def forward(
        self,
        input_ids: Tensor,  # (B, S)
        attention_mask: Tensor | None = None,  # (B, all tokens so far); 0: padding in front
        past_key_values: MorCache | None = None,
        labels: Tensor | None = None,  # (B, S), -100 is ignored; shifted here
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_dict: bool | None = None,
        inputs_embeds: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,  # labels of all parts of a batch
        **others: Any,  # positions and the like, which follow from the tokens
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits (B, S, V), those of padding zero. Raises ValueError for what has no such form."""
        if inputs_embeds is not None:
            raise ValueError("inputs_embeds: a router reads tokens' own states; give input_ids")
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if past_key_values is not None or use_cache:
            if past_key_values is None:
                past_key_values = MorCache(self.transformer, mask)
            logits = past_key_values.feed(input_ids)
        else:
            logits = self._whole(input_ids, mask)
        loss = None
        if labels is not None:
            loss = _loss(logits, labels, mask[:, -input_ids.shape[1] :], num_items_in_batch)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits[:, keep],
            past_key_values=past_key_values,  # type: ignore[arg-type]
        )
        return output.to_tuple() if return_dict is False else output

    def _whole(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """One forward pass; of each sequence alone where some have padding."""
        padding = padding_of(mask)
        if not padding:
            return self._logits(tokens)
        rows = [self._logits(row[None, n:])[0] for row, n in zip(tokens, padding, strict=True)]
        return torch.stack([F.pad(row, (0, 0, n, 0)) for row, n in zip(rows, padding, strict=True)])

    def _logits(self, tokens: Tensor) -> Tensor:
        logits = self.transformer(tokens, routing="causal").logits
        assert logits is not None
        return logits


def _loss(logits: Tensor, labels: Tensor, mask: Tensor, n: Tensor | int | None) -> Tensor:
    """The mean over the labels (B, S) here, or their sum over `n`: of a batch that comes in parts.
    Padding (`mask` is 0) predicts nothing."""
    targets = labels[:, 1:].masked_fill(mask[:, :-1] == 0, IGNORED).flatten()
    scores = logits[:, :-1].flatten(0, 1)
    if n is None:
        return F.cross_entropy(scores, targets, ignore_index=IGNORED)
    return F.cross_entropy(scores, targets, ignore_index=IGNORED, reduction="sum") / n
