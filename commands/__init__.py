"""The `gpt` command: what is not a stage. One file per command or group, its options with its work.

Not here: what a stage needs too (gpt/ or repro/); no stage imports this package.
Start with cli.py, the list of commands; then compare.py."""
