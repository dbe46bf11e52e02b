"""What a profile costs before it is started: its jobs, their work, and the time that a device takes for it."""
