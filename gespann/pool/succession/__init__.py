"""Who leads the pool: epochs, copies of the database on other hosts, and how the lead goes to another host."""
