"""No input: reads the world, and makes records and world agree."""
