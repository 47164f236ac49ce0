"""The files that `gpt workshop start` copies: signatures and docstrings for the learner to fill in.
Not here: solutions, which are the code blocks of docs/1-tokenization.md to docs/4-generation.md.
Start with tokenizer.py, the file of part 1.
"""
