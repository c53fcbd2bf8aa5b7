"""How an object of each class looks on the command line: its columns, their values, and what may be changed."""
