"""Weights and tokenizers in the layouts of other projects."""
