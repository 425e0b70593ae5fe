"""What people run: the command line and the experiments behind it."""
