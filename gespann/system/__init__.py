"""The only doors to processes, files, sockets of the seams, clock and log."""
