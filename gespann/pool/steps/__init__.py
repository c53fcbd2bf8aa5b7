"""Work in steps: each with its undo, journalled, so that a crash at any step is finished or undone.

An *operation* is a name, JSON arguments and a list of steps built from them. A step is a pair of coroutines:

    @step("volume-create")
    class VolumeCreate:
        async def do(self, run: Run) -> None      # idempotent: may be repeated after a crash
        async def undo(self, run: Run) -> None    # idempotent: succeeds when there is nothing to undo

``run.args`` are the operation's arguments, ``run.notes`` what earlier steps wrote down (JSON, durable before the
next step begins). Intent is journalled before each ``do``. A step marked ``point_of_no_return`` ends undoing: from
it on a crash or a failure is answered by finishing.
"""
