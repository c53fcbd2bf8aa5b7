"""One file per process: the only place that puts the parts together, and chooses real or fake."""
