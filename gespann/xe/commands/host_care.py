"""Reports, logs, certificate and licence of hosts."""

from gespann.xe.call import Call, Handler
from gespann.xe.commands.hosts import host_or_coordinator
from gespann.xe.commands.transfers import transfer
from gespann.xe.failures import CommandFailure
from gespann.xe.selectors import HOSTS, Selected, for_each, select, select_one


async def get_system_status(call: Call) -> None:
    """Of all hosts: the archive has a part of each."""
    await _assert_selected(call)
    query = {key: value for key in ("entries", "output") if (value := call.arguments.text(key))}
    await transfer(call, "Collecting the system status", "/system-status", query, upload=False)


async def _assert_selected(call: Call) -> None:
    if not await select(call, HOSTS):
        raise CommandFailure(HOSTS.none_found)


async def get_system_status_capabilities(call: Call) -> None:
    async def show(host: Selected) -> None:
        await call.printer.values([str(await call.request("host.get_system_status_capabilities", host.ref))])

    await for_each(call, HOSTS, show)


async def logs_download(call: Call) -> None:
    await _assert_selected(call)
    await transfer(call, "Downloading the logs", "/host_logs_download", {}, upload=False, file_key="file-name")


async def server_certificate_install(call: Call) -> None:
    host = await select_one(call, HOSTS)
    files = [await _text_file(call, call.arguments.required(key)) for key in ("certificate", "private-key")]
    chain = call.arguments.text("certificate-chain")
    files.append(await _text_file(call, chain) if chain else "")
    await call.request("host.install_server_certificate", host.ref, *files)


async def _text_file(call: Call, path: str) -> str:
    try:
        return (await call.client.load(path)).decode("ascii")
    except UnicodeDecodeError:
        raise CommandFailure(f"{path} is not a PEM file") from None


async def is_in_emergency_mode(call: Call) -> None:
    answer = await call.request("host.is_in_emergency_mode")
    await call.printer.values(["true" if answer else "false"])


async def license_view(call: Call) -> None:
    params = await call.request("host.get_license_params", await host_or_coordinator(call, "host-uuid"))
    await call.printer.table([[(str(key), str(value)) for key, value in params.items()]])


async def all_editions(call: Call) -> None:
    await call.printer.values([",".join(await call.request("host.get_editions", await host_or_coordinator(call)))])


COMMANDS: dict[str, Handler] = {
    "host-all-editions": all_editions,
    "host-get-system-status": get_system_status,
    "host-get-system-status-capabilities": get_system_status_capabilities,
    "host-is-in-emergency-mode": is_in_emergency_mode,
    "host-license-view": license_view,
    "host-logs-download": logs_download,
    "host-server-certificate-install": server_certificate_install,
}
