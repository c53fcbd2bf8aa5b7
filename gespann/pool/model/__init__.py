"""The pool's database: tables of records in memory, durable in SQLite, one writer."""
