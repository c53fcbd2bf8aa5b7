"""What may cross a border between two parts. Nothing here imports anything of ours but other seams."""
