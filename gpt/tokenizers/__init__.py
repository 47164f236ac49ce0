"""Tokenizers: text to token ids and back, their vocabularies, encoding of a whole corpus. No torch.
Not here: reading and splitting texts (gpt/corpus), drawing batches of ids (gpt/batches.py).
Start with base.py, the interface; then char.py, the shortest tokenizer.
"""
