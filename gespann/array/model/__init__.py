"""What a group is: storage pools, volumes, access records, CHAP users, accounts, events; kept in SQLite."""
