"""The default corpus: plays by a grammar whose every choice has a known probability."""
