"""The `gpt` command."""
