"""The way to the engine (seam 4): a client with the policy it pushes, the process, and a fake behind the same seam."""
