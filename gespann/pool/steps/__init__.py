"""Work in steps: each with its undo, journalled, so that a crash at any step is finished or undone.

An *operation* is a name and a list of steps with JSON arguments, decided by a planner of ``gespann.pool.plan``:

    @step
    class VolumeCreate(Step):
        name = "volume-create"

        async def do(self, run: Run) -> None         # the world outside; may be repeated
        async def undo(self, run: Run) -> None       # succeeds when there is nothing to undo
        def commit(self, run: Run, tx: Transaction)  # records, in the transaction that journals ``do`` as done
        def revert(self, run: Run, tx: Transaction)  # and back, with ``undo``

``run.args`` are the step's arguments, ``run.notes`` what its earlier steps wrote down (JSON, durable before
the next step begins), ``run.memory`` what must not be written (secrets, open files). A step marked
``point_of_no_return`` ends undoing: from it on a crash or a failure is answered by finishing.

Why so: docs/decisions/pool-steps-and-their-undoing.md.
"""
