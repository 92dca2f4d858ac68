"""What knows nothing of ours: files, devices, processes, seeds, signals, progress."""
