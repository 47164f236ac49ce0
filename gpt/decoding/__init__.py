"""Next-token logits with a cache, and searches over them."""
