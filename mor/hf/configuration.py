"""The configuration of our models as transformers keeps it: `config.json`."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig

from mor.model.llama import HF_TYPE, Shape, shape_of


class MorConfig(PreTrainedConfig):
    """`model` and `size` are our own configuration, as JSON; `separator` closes documents where the
    model masks them, `seed` is a random router's."""

    model_type = HF_TYPE

    def __init__(
        self,
        model: dict[str, Any] | None = None,
        size: dict[str, Any] | None = None,
        vocab_size: int = 0,
        separator: int | None = None,
        seed: int = 0,
        max_position_embeddings: int | None = None,
        **others: Any,
    ) -> None:
        self.model, self.size = model or {}, size or {}
        self.vocab_size, self.separator, self.seed = vocab_size, separator, seed
        self.max_position_embeddings = max_position_embeddings
        self.hidden_size = self.size.get("d_model")
        self.num_hidden_layers = self.size.get("n_layers")
        self.num_attention_heads = self.size.get("n_heads")
        self.num_key_value_heads = self.size.get("n_kv_heads")
        super().__init__(**{**others, "tie_word_embeddings": False})  # tied by construction

    @property
    def shape(self) -> Shape:
        """What our model is built from. Raises ConfigError."""
        return shape_of(vars(self))
