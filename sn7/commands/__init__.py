"""The sub-commands of `sn7`, one module each: `add` says what it takes, `run` does it and returns what it prints."""
