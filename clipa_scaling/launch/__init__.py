"""Starting runs: a pool of processes on this machine."""
