"""The data room: corpus -> tokenizer -> packed tokens -> batches."""
