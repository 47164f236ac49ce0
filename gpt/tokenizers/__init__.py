"""Text to ids and back: characters, bytes, byte pairs, and learning them. No torch."""
