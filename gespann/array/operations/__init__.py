"""What changes both the database and the engine: intent first, then the engine, then done."""
