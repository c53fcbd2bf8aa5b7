"""Steps on storage repositories and their connections."""

from dataclasses import replace

from gespann.pool.model.database import Transaction
from gespann.pool.steps.registry import Run, Step, step
from gespann.pool.steps.storage_door import StorageRefused, driver_of, sr_as_driver_sees_it, storage_words


@step
class RepositoryReach(Step):
    """args: sr. Asks the storage something harmless first: a wrong address or password is found before anything is
    made, so that there is nothing to undo on a storage that nobody can reach."""

    name = "repository-reach"

    async def do(self, run: Run) -> None:
        sr = run.args["sr"]
        driver, seen = driver_of(run.pool, sr), sr_as_driver_sees_it(run.pool.db, sr)
        if "SR_PROBE" in driver.info.capabilities:
            with storage_words(sr):
                await driver.probe(seen.device_config, seen.sm_config)


@step
class RepositoryCreate(Step):
    """args: sr, physical_size_bytes. Its record and its PBDs are there already."""

    name = "repository-create"

    async def do(self, run: Run) -> None:
        sr = run.args["sr"]
        try:
            with storage_words(sr):
                run.notes["sm_config"] = await driver_of(run.pool, sr).create(
                    sr_as_driver_sees_it(run.pool.db, sr), run.args["physical_size_bytes"]
                )
        except StorageRefused as error:
            run.memory["refused"] = error.number
            raise

    async def undo(self, run: Run) -> None:
        sr = run.args["sr"]
        try:
            with storage_words(sr):
                await driver_of(run.pool, sr).destroy(sr_as_driver_sees_it(run.pool.db, sr))
        except StorageRefused as error:
            if error.number != run.memory.get("refused") or error.nobody_answered:
                raise  # otherwise the storage refuses the same words now as then: they had no effect

    def commit(self, run: Run, tx: Transaction) -> None:
        tx.set("SR", run.args["sr"], sm_config={**tx.get("SR", run.args["sr"])["sm_config"], **run.notes["sm_config"]})


@step
class RepositoryDestroy(Step):
    """args: sr"""

    name = "repository-destroy"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        sr = run.args["sr"]
        with storage_words(sr):
            await driver_of(run.pool, sr).destroy(sr_as_driver_sees_it(run.pool.db, sr))


@step
class RepositoryAttach(Step):
    """args: sr, pbd"""

    name = "repository-attach"

    async def do(self, run: Run) -> None:
        sr = run.args["sr"]
        driver, seen = driver_of(run.pool, sr), sr_as_driver_sees_it(run.pool.db, sr)
        with storage_words(sr):
            await driver.attach(seen)
            stat = await driver.stat(seen)
        run.notes["stat"] = {
            "physical_size": stat.physical_size_bytes,
            "physical_utilisation": stat.physical_utilisation_bytes,
            "virtual_allocation": stat.virtual_allocation_bytes,
        }

    async def undo(self, run: Run) -> None:
        await _let_go(run)

    def commit(self, run: Run, tx: Transaction) -> None:
        tx.set("PBD", run.args["pbd"], currently_attached=True)
        tx.set("SR", run.args["sr"], **run.notes["stat"])

    def revert(self, run: Run, tx: Transaction) -> None:
        if tx.exists("PBD", run.args["pbd"]):
            tx.set("PBD", run.args["pbd"], currently_attached=False)


@step
class RepositoryDetach(Step):
    """args: sr, pbd"""

    name = "repository-detach"
    point_of_no_return = True

    async def do(self, run: Run) -> None:
        await _let_go(run)

    def commit(self, run: Run, tx: Transaction) -> None:
        tx.set("PBD", run.args["pbd"], currently_attached=False)


async def _let_go(run: Run) -> None:
    """Lets the driver close its connections, unless another host's PBD still needs them."""
    sr = run.args["sr"]
    others = [
        ref
        for ref in run.pool.db.get("SR", sr)["PBDs"]
        if ref != run.args["pbd"] and run.pool.db.get("PBD", ref)["currently_attached"]
    ]
    if not others:
        with storage_words(sr):
            await driver_of(run.pool, sr).detach(sr_as_driver_sees_it(run.pool.db, sr))


@step
class RepositoryUpdate(Step):
    """args: sr, fields, old (fields as they were)"""

    name = "repository-update"

    async def do(self, run: Run) -> None:
        await self._write(run, run.args["fields"])

    async def undo(self, run: Run) -> None:
        await self._write(run, run.args["old"])

    async def _write(self, run: Run, fields: dict[str, str]) -> None:
        sr = run.args["sr"]
        seen = sr_as_driver_sees_it(run.pool.db, sr)
        with storage_words(sr):
            await driver_of(run.pool, sr).update(
                replace(seen, name_label=fields["name_label"], name_description=fields["name_description"])
            )

    def commit(self, run: Run, tx: Transaction) -> None:
        tx.set("SR", run.args["sr"], **run.args["fields"])
