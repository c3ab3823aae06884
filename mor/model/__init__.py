"""The language models. No imports here: planning reads `mor.model.sharing` without torch."""
