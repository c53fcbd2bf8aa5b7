"""Group control: the array's control plane (docs/howto/array-command.md shows a change)."""
