"""The thin client: knows the protocol, its options and its files, and no command. Imports as little as it can."""
