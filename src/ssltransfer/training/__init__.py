"""One fit loop, schedules, checkpoints, devices, progress."""
