"""Next-token logits of a trained model, position by position, and the search over them.
Not here: sampling, stop strings and text (generation.py); keys and values (kv_cache.py).
Start with decoder.py.
"""
