"""The words of the group CLI. Each command is declared once; grammar, help and abbreviations come from that."""
