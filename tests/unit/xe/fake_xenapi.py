"""A small XenAPI server in memory: generic messages from the datamodel, and the few behaviours that ``xe`` leans on."""

import asyncio
import copy
import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from gespann.seams.xenapi import datamodel
from gespann.seams.xenapi.errors import XenApiError

NULL = datamodel.NULL_REF
NOW = "20260101T00:00:00Z"
USER, PASSWORD = "root", "correct horse"
STORAGE_POOLS = (
    "<StoragePools><StoragePool><Name>default</Name><Default>true</Default><Members>1</Members><Volumes>0</Volumes>"
    "<Capacity>1000</Capacity><Freespace>900</Freespace></StoragePool></StoragePools>"
)


class FakeXenApi:
    """``calls``: every call but logins, as (method, params without the session). ``advertised``: classes it has."""

    def __init__(self, advertised: frozenset[str] | None = None) -> None:
        self.db: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in datamodel.classes()}
        self.advertised = advertised or frozenset(self.db)
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.sessions: set[str] = set()
        self.fail: dict[str, XenApiError] = {}
        self._next = 0
        self._version = 0
        self._changed: dict[tuple[str, str], int] = {}
        self._news = asyncio.Condition()

    # -- objects ------------------------------------------------------------------------------------------------

    def add(self, class_name: str, **values: Any) -> str:
        """A new object with defaults for what is not given. Uuids count up: the first ends in 0001."""
        self._next += 1
        ref = f"OpaqueRef:{self._next:04d}"
        fields = datamodel.classes()[class_name].fields
        assert not set(values) - set(fields), set(values) - set(fields)
        record = {name: copy.deepcopy(field.default) for name, field in fields.items()}
        record["uuid"] = f"00000000-0000-4000-8000-{self._next:012d}"
        self.db[class_name][ref] = record | values
        self._relate(class_name, ref)
        self._touch(class_name, ref)
        return ref

    def uuid(self, ref: str) -> str:
        return next(str(records[ref]["uuid"]) for records in self.db.values() if ref in records)

    def _relate(self, class_name: str, ref: str) -> None:
        record = self.db[class_name][ref]
        for relation in datamodel.relations():
            one_class, one_field = relation.one
            many_class, many_field = relation.many
            if one_class == class_name and isinstance(record[one_field], str):
                target = self.db[many_class].get(record[one_field])
                if target is not None and ref not in target[many_field]:
                    target[many_field].append(ref)

    def remove(self, class_name: str, ref: str) -> None:
        del self.db[class_name][ref]
        for relation in datamodel.relations():
            if relation.one[0] == class_name:
                for target in self.db[relation.many[0]].values():
                    if ref in target[relation.many[1]]:
                        target[relation.many[1]].remove(ref)
        self._touch(class_name, ref)

    def _touch(self, class_name: str, ref: str) -> None:
        self._version += 1
        self._changed[(class_name, ref)] = self._version

    # -- calls --------------------------------------------------------------------------------------------------

    async def local_session(self) -> str:
        self.sessions.add("OpaqueRef:local")
        return "OpaqueRef:local"

    async def call(self, method: str, *params: Any) -> Any:
        if method == "session.login_with_password":
            return self._login(*params)
        session, *rest = params
        if session not in self.sessions:
            raise XenApiError("SESSION_INVALID", [str(session)])
        if method == "session.logout":
            self.sessions.discard(session)
            return ""
        self.calls.append((method, tuple(rest)))
        if method.startswith("Async."):
            return await self._start_task(method.removeprefix("Async."), rest)
        if method == "event.from":
            return await self._events(*rest)
        answer = self._answer(method, rest)
        async with self._news:
            self._news.notify_all()
        return answer

    def _login(self, user: str, password: str, *_: Any) -> str:
        if (user, password) != (USER, PASSWORD):
            raise XenApiError("SESSION_AUTHENTICATION_FAILED", [user, "no"])
        self.sessions.add("OpaqueRef:session")
        return "OpaqueRef:session"

    def _answer(self, method: str, params: list[Any]) -> Any:
        class_name, _, name = method.partition(".")
        message = datamodel.classes()[class_name].messages.get(name) if class_name in self.advertised else None
        if message is None:
            raise XenApiError("MESSAGE_METHOD_UNKNOWN", [method])
        if method in self.fail:
            raise self.fail[method]
        least = sum(not param.optional for param in message.params)
        if not least <= len(params) <= len(message.params):
            counts = [str(len(message.params)), str(len(params))]
            raise XenApiError("MESSAGE_PARAMETER_COUNT_MISMATCH", [method, *counts])
        json.dumps(params)  # plain values only
        params = copy.deepcopy(params)
        written: Callable[..., Any] | None = getattr(self, f"_do_{class_name}_{name}", None)
        if written:
            return written(*params)
        generic: Callable[..., Any] | None = getattr(self, f"_generic_{message.kind}", None)
        if generic is None:
            raise XenApiError("NOT_IMPLEMENTED", [method])
        return generic(message, *params)

    async def _start_task(self, method: str, params: list[Any]) -> str:
        class_name, _, name = method.partition(".")
        assert datamodel.classes()[class_name].messages[name].is_async, method
        task = self.add("task", name_label=f"Async.{method}", status="pending", created=NOW)
        try:
            answer = self._answer(method, params)
            result = f"<value>{escape(str(answer))}</value>" if answer != "" else ""
            change = {"status": "success", "result": result, "progress": 1.0}
        except XenApiError as error:
            change = {"status": "failure", "error_info": [error.code, *error.params]}
        self.db["task"][task] |= change
        self._touch("task", task)
        async with self._news:
            self._news.notify_all()
        return task

    async def _events(self, classes: list[str], token: str, timeout_s: float) -> dict[str, Any]:
        since = int(token or 0)
        try:
            async with asyncio.timeout(timeout_s), self._news:
                while not (events := self._events_since(classes, since)):
                    await self._news.wait()
        except TimeoutError:
            events = []
        return {"events": events, "token": str(self._version), "valid_ref_counts": {}}

    def _events_since(self, classes: list[str], since: int) -> list[dict[str, Any]]:
        found = []
        for (class_name, ref), version in self._changed.items():
            wanted = any(w.lower() in (class_name.lower(), f"{class_name}/{ref}".lower(), "*") for w in classes)
            snapshot = self.db[class_name].get(ref)
            if not wanted or version <= since or (snapshot is None and since == 0):
                continue
            event = {"class": class_name.lower(), "ref": ref, "operation": "mod" if snapshot else "del"}
            found.append(event | ({"snapshot": copy.deepcopy(snapshot)} if snapshot else {}))
        return found

    # -- generic messages -----------------------------------------------------------------------------------------

    def _object(self, class_name: str, ref: str) -> dict[str, Any]:
        if ref not in self.db[class_name]:
            raise XenApiError("HANDLE_INVALID", [class_name, ref])
        return self.db[class_name][ref]

    def _generic_get_all(self, m: datamodel.Message) -> Any:
        return list(self.db[m.class_name])

    def _generic_get_all_records(self, m: datamodel.Message) -> Any:
        return copy.deepcopy(self.db[m.class_name])

    def _generic_get_record(self, m: datamodel.Message, ref: str) -> Any:
        return copy.deepcopy(self._object(m.class_name, ref))

    def _generic_get_by_uuid(self, m: datamodel.Message, uuid: str) -> Any:
        for ref, record in self.db[m.class_name].items():
            if record["uuid"] == uuid:
                return ref
        raise XenApiError("UUID_INVALID", [m.class_name, uuid])

    def _generic_get_by_name_label(self, m: datamodel.Message, label: str) -> Any:
        return [ref for ref, record in self.db[m.class_name].items() if record["name_label"] == label]

    def _generic_getter(self, m: datamodel.Message, ref: str) -> Any:
        return copy.deepcopy(self._object(m.class_name, ref)[m.field])

    def _generic_setter(self, m: datamodel.Message, ref: str, value: Any) -> str:
        self._object(m.class_name, ref)[m.field] = value
        self._touch(m.class_name, ref)
        return ""

    def _generic_adder(self, m: datamodel.Message, ref: str, key: Any, *value: Any) -> str:
        held = self._object(m.class_name, ref)[m.field]
        if isinstance(held, dict):
            if key in held:
                raise XenApiError("MAP_DUPLICATE_KEY", [m.class_name, m.field, self.uuid(ref), key])
            held[key] = value[0]
        elif key not in held:
            held.append(key)
        self._touch(m.class_name, ref)
        return ""

    def _generic_remover(self, m: datamodel.Message, ref: str, key: Any) -> str:
        held = self._object(m.class_name, ref)[m.field]
        if isinstance(held, dict):
            held.pop(key, None)
        elif key in held:
            held.remove(key)
        self._touch(m.class_name, ref)
        return ""

    def _generic_ctor(self, m: datamodel.Message, record: dict[str, Any]) -> str:
        return self.add(m.class_name, **record)

    def _generic_dtor(self, m: datamodel.Message, ref: str) -> str:
        self._object(m.class_name, ref)
        self.remove(m.class_name, ref)
        return ""

    def _generic_custom(self, m: datamodel.Message, *params: Any) -> Any:
        """A custom setter sets; what gives nothing succeeds; the rest has to be written."""
        name = m.name.removeprefix("set_")
        for prefix, change in (("set_", "_generic_setter"), ("add_to_", "_generic_adder"), ("add_", "_generic_adder")):
            field_name = m.name.removeprefix(prefix)
            if m.name.startswith(prefix) and field_name in datamodel.classes()[m.class_name].fields:
                return getattr(self, change)(_with_field(m, field_name), *params)
        for prefix in ("remove_from_", "remove_"):
            field_name = m.name.removeprefix(prefix)
            if m.name.startswith(prefix) and field_name in datamodel.classes()[m.class_name].fields:
                return self._generic_remover(_with_field(m, field_name), *params)
        if m.name in ("get_all", "get_record", "get_by_uuid", "get_all_records", "create", "destroy"):
            return getattr(self, f"_generic_{ {'create': 'ctor', 'destroy': 'dtor'}.get(name, name) }")(m, *params)
        if m.result.kind == "void":
            return ""
        raise XenApiError("NOT_IMPLEMENTED", [f"{m.class_name}.{m.name}"])

    # -- behaviours -----------------------------------------------------------------------------------------------

    def _do_task_create(self, label: str, description: str) -> str:
        return self.add("task", name_label=label, name_description=description, status="pending", created=NOW)

    def _do_message_create(self, name: str, priority: int, cls: str, obj_uuid: str, body: str) -> str:
        return self.add("message", name=name, priority=priority, cls=cls, obj_uuid=obj_uuid, body=body, timestamp=NOW)

    def _power(self, ref: str, expected: str, then: str) -> str:
        vm = self._object("VM", ref)
        if vm["power_state"].lower() not in expected.split(", "):
            raise XenApiError("VM_BAD_POWER_STATE", [ref, expected, vm["power_state"].lower()])
        vm["power_state"] = then
        self._touch("VM", ref)
        self._do_message_create(f"VM_{then.upper()}", 4, "VM", vm["uuid"], "")
        return ""

    def _do_VM_start(self, ref: str, paused: bool, force: bool) -> str:
        return self._power(ref, "halted", "Paused" if paused else "Running")

    def _do_VM_start_on(self, ref: str, host: str, paused: bool, force: bool) -> str:
        self._object("host", host)
        self._power(ref, "halted", "Paused" if paused else "Running")
        self.db["VM"][ref]["resident_on"] = host
        return ""

    def _do_VM_clean_shutdown(self, ref: str) -> str:
        return self._power(ref, "running", "Halted")

    def _do_VM_hard_shutdown(self, ref: str) -> str:
        return self._power(ref, "paused, running, suspended", "Halted")

    def _do_VM_suspend(self, ref: str) -> str:
        return self._power(ref, "running", "Suspended")

    def _do_VM_resume(self, ref: str, paused: bool, force: bool) -> str:
        return self._power(ref, "suspended", "Running")

    def _do_VM_pause(self, ref: str) -> str:
        return self._power(ref, "running", "Paused")

    def _do_VM_unpause(self, ref: str) -> str:
        return self._power(ref, "paused", "Running")

    def _do_VM_clean_reboot(self, ref: str) -> str:
        return self._power(ref, "running", "Running")

    def _do_VM_hard_reboot(self, ref: str) -> str:
        return self._power(ref, "paused, running", "Running")

    def _do_VM_get_allowed_VBD_devices(self, ref: str) -> list[str]:
        used = {self.db["VBD"][vbd]["userdevice"] for vbd in self._object("VM", ref)["VBDs"]}
        return [str(number) for number in range(4) if str(number) not in used]

    def _do_VM_get_possible_hosts(self, ref: str) -> list[str]:
        return list(self.db["host"])

    def _do_VM_maximise_memory(self, ref: str, total: int, approximate: bool) -> int:
        return total - 1024**2

    def _copy(self, ref: str, name: str, sr: str = NULL, **changes: Any) -> str:
        original = copy.deepcopy(self._object("VM", ref))
        for field in ("uuid", "VBDs", "VIFs", "consoles", "snapshots", "children"):
            del original[field]
        new = self.add("VM", **(original | {"name_label": name, "power_state": "Halted"} | changes))
        for vbd_ref in self.db["VM"][ref]["VBDs"]:
            vbd = {k: v for k, v in self.db["VBD"][vbd_ref].items() if k != "uuid"}
            vdi = {k: v for k, v in self.db["VDI"][vbd["VDI"]].items() if k not in ("uuid", "VBDs")}
            copied = self.add("VDI", **copy.deepcopy(vdi | ({"SR": sr} if sr != NULL else {})))
            self.add("VBD", **copy.deepcopy(vbd | {"VM": new, "VDI": copied}))
        return new

    def _do_VM_clone(self, ref: str, name: str) -> str:
        return self._copy(ref, name)

    def _do_VM_copy(self, ref: str, name: str, sr: str) -> str:
        return self._copy(ref, name, sr)

    def _do_VM_snapshot(self, ref: str, name: str, ignore_vdis: list[str] | None = None) -> str:
        return self._copy(ref, name, is_a_snapshot=True, is_a_template=True, snapshot_of=ref, snapshot_time=NOW)

    def _do_VM_provision(self, ref: str) -> str:
        vm = self._object("VM", ref)
        for disk in ElementTree.fromstring(vm["other_config"].pop("disks", "<provision/>")).findall("disk"):
            sr = self._generic_get_by_uuid(datamodel.classes()["SR"].messages["get_by_uuid"], disk.attrib["sr"])
            vdi = self.add("VDI", name_label="made", SR=sr, virtual_size=int(disk.attrib["size"]), type="user")
            self.add("VBD", VM=ref, VDI=vdi, userdevice=disk.attrib["device"], type="Disk", other_config={"owner": ""})
        vm["is_a_template"] = False
        return ""

    def _do_VDI_snapshot(self, ref: str, driver_params: dict[str, str] | None = None) -> str:
        original = {k: v for k, v in self._object("VDI", ref).items() if k not in ("uuid", "VBDs", "snapshots")}
        return self.add("VDI", **copy.deepcopy(original | {"is_a_snapshot": True, "snapshot_of": ref}))

    _do_VDI_clone = _do_VDI_snapshot

    def _do_VDI_copy(self, ref: str, sr: str = NULL, base: str = NULL, into: str = NULL) -> str:
        return into if into != NULL else self._do_VDI_snapshot(ref)

    def _do_VDI_resize(self, ref: str, size: int) -> str:
        vdi = self._object("VDI", ref)
        if size <= vdi["virtual_size"]:
            raise XenApiError("VDI_TOO_SMALL", [ref, str(vdi["virtual_size"])])
        vdi["virtual_size"] = size
        return ""

    _do_VDI_resize_online = _do_VDI_resize

    def _do_SR_create(self, host: str, config: dict[str, str], size: int, name: str, text: str, kind: str, content: str,
                      shared: bool, sm_config: dict[str, str] | None = None) -> str:  # fmt: skip
        if kind == "equal" and "storagepool" not in config:
            texts = ["", "Equallogic StoragePool parameter missing in Dconf string", STORAGE_POOLS]
            raise XenApiError("SR_BACKEND_FAILURE_163", texts)
        if kind not in ("equal", "iso"):
            raise XenApiError("SR_UNKNOWN_DRIVER", [kind])
        values = {"name_label": name, "name_description": text, "type": kind, "content_type": content, "shared": shared}
        sr = self.add("SR", **values, sm_config=sm_config or {})
        for each in self.db["host"] if shared else [host]:
            self.add("PBD", host=each, SR=sr, device_config=config, currently_attached=True)
        return sr

    def _do_SR_introduce(self, uuid: str, name: str, text: str, kind: str, content: str, shared: bool,
                         sm_config: dict[str, str] | None = None) -> str:  # fmt: skip
        values = {"name_label": name, "name_description": text, "type": kind, "content_type": content, "shared": shared}
        return self.add("SR", uuid=uuid, **values, sm_config=sm_config or {})

    def _do_SR_probe(self, host: str, config: dict[str, str], kind: str, sm_config: dict[str, str]) -> str:
        return '<?xml version="1.0" ?><SRlist>\n</SRlist>'

    def _do_SR_get_supported_types(self) -> list[str]:
        return ["iso", "equal"]

    def _do_VBD_plug(self, ref: str) -> str:
        self._object("VBD", ref)["currently_attached"] = True
        return ""

    def _do_VBD_unplug(self, ref: str) -> str:
        if not self._object("VBD", ref)["currently_attached"]:
            raise XenApiError("DEVICE_ALREADY_DETACHED", [ref])
        self._object("VBD", ref)["currently_attached"] = False
        return ""

    def _do_VBD_insert(self, ref: str, vdi: str) -> str:
        self._object("VBD", ref).update(VDI=vdi, empty=False)
        return ""

    def _do_VBD_eject(self, ref: str) -> str:
        if self._object("VBD", ref)["type"] != "CD":
            raise XenApiError("VBD_NOT_REMOVABLE_MEDIA", [ref])
        if self._object("VBD", ref)["empty"]:
            raise XenApiError("VBD_IS_EMPTY", [ref])
        self._object("VBD", ref).update(VDI=NULL, empty=True)
        return ""

    def _do_host_disable(self, ref: str, auto_enable: bool = True) -> str:
        self._object("host", ref)["enabled"] = False
        return ""

    def _do_host_enable(self, ref: str) -> str:
        self._object("host", ref)["enabled"] = True
        return ""

    def _do_host_call_plugin(self, ref: str, plugin: str, fn: str, args: dict[str, str]) -> str:
        if plugin != "echo":
            raise XenApiError("XENAPI_MISSING_PLUGIN", [plugin])
        return f"{fn} & {args}"

    def _do_pool_ha_compute_max_host_failures_to_tolerate(self) -> int:
        return 1

    def _do_task_cancel(self, ref: str) -> str:
        self._object("task", ref)["status"] = "cancelled"
        self._touch("task", ref)
        return ""


def _with_field(message: datamodel.Message, field: str) -> datamodel.Message:
    return datamodel.Message(**{**message.__dict__, "field": field})
