"""Text in: sources, downloads, readers, splits, the manifest of a corpus. No torch."""
