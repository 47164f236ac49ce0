"""Our models in the formats of other projects (transformers, llama.cpp), and back: GPT-2's weights.

Not here: our own format (gpt/checkpoint.py). Start with huggingface.py.
"""
