"""The default corpus: plays in verse by a grammar whose every choice has a known probability.

Imports nothing of gpt, stages or repro, only the standard library. Start with grammar.py.
"""
