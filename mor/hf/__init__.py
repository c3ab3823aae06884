"""Our models in transformers: `import mor.hf`, then `AutoModelForCausalLM.from_pretrained(folder)`
of a folder that `python -m mor export RUN folder hf` wrote.

Every architecture, routed as at inference. A vanilla model is exported as a plain Llama and needs
none of this; tokenizers are plain fast tokenizers.
"""

from transformers import AutoConfig, AutoModelForCausalLM

from mor.hf.configuration import MorConfig
from mor.hf.model import MorForCausalLM

AutoConfig.register(MorConfig.model_type, MorConfig)
AutoModelForCausalLM.register(MorConfig, MorForCausalLM)

__all__ = ["MorConfig", "MorForCausalLM"]
