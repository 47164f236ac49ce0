"""A corpus: texts are downloaded, read, split, written to disk, and read back from there.

Not here: what a token is (gpt.tokenizers), a grammar (verse), or torch. Start with manifest.py.
"""
