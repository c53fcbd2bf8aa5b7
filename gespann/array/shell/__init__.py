"""SSH bytes: accounts at the door, terminals, lines. No word of the CLI is known here."""
