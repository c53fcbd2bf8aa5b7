"""`xe`: the command engine that the coordinator serves on POST /cli, and the thin client that speaks to it."""
