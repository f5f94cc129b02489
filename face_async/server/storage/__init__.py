"""Where the local server keeps groups, persons and faces."""
