"""The tiny guest under QEMU, with disks over iSCSI, and what its crash witnesses say."""

import re
import socket
import subprocess
import threading
import time
import zlib
from pathlib import Path

from tests.listening import listens
from tests.product.engine.engine_process import EngineProcess

BOOT_S = 400.0
WAIT_S = 240.0
RECORD, RAW_BLOCK, SUMMED = 64, 4096, 54  # of guest/seqwriter.c


def last_record(disk: bytes, step: int = RAW_BLOCK) -> int:
    """The number of records that follow each other from 1 with good checksums: what `seqwriter rawcheck` counts."""
    number = 0
    for start in range(0, len(disk), step):
        record = disk[start : start + RECORD]
        summed = f"{zlib.crc32(record[:SUMMED]):08x}".encode()
        if record[SUMMED + 1 : RECORD - 1] != summed or int(record[:12]) != number + 1:
            break
        number += 1
    return number


class Port:
    """One serial port of the guest, as a socket that a thread reads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = ""
        self.news = threading.Condition()
        self.socket = socket.socket(socket.AF_UNIX)

    def open(self) -> None:
        self.socket.connect(str(self.path))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while data := self.socket.recv(65536):
            with self.news:
                self.text += data.decode(errors="replace").replace("\r", "")
                self.news.notify_all()

    def write(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def expect(self, pattern: str, timeout_s: float = WAIT_S) -> "re.Match[str]":
        with self.news:
            self.news.wait_for(lambda: re.search(pattern, self.text), timeout_s)
            found = re.search(pattern, self.text)
            assert found, f"expected {pattern}, the guest said: {self.text[-2000:]}"
            self.text = self.text[found.end() :]
            return found


class Witness(Port):
    """A serial port that a seqwriter prints to."""

    last = 0

    def look(self) -> int:
        """The newest record that is durable, as the guest was told."""
        with self.news:
            assert "ERR" not in self.text, f"the guest's disk refused a write: {self.text[-500:]}"
            lines = re.findall(r"SEQ (\d+) \d+\n", self.text)
            if lines:
                self.last = int(lines[-1])
                self.text = self.text[self.text.rindex("\n") + 1 :]
            return self.last

    def wait_beyond(self, number: int, timeout_s: float = WAIT_S) -> int:
        deadline = time.monotonic() + timeout_s
        while (seen := self.look()) <= number:
            with self.news:
                self.news.wait(1)
            assert time.monotonic() < deadline, f"no record after {seen} came in {timeout_s:.0f} s"
        return seen


class Guest:
    """Its root is a throw-away copy of the image. ``iqns``: its other disks, in this order, of serials disk0, disk1."""

    def __init__(self, image: Path, folder: Path, engine: EngineProcess, iqns: list[str]) -> None:
        self.image = image
        self.folder = folder
        self.engine = engine
        self.iqns = iqns
        self.console = Port(folder / "serial0")
        self.witnesses = [Witness(folder / f"serial{index + 1}") for index in range(len(iqns))]
        self.process: subprocess.Popen[bytes] | None = None
        self.prompts = 0

    def command(self) -> list[str]:
        words = ["qemu-system-x86_64", "-machine", "pc,accel=tcg", "-cpu", "max", "-m", "192", "-nodefaults"]
        words += ["-vga", "std", "-display", "none", "-device", "virtio-scsi-pci", "-device", "virtio-rng-pci"]
        words += [
            "-device",
            "virtio-serial-pci",
            "-chardev",
            f"socket,id=agent,path={self.folder / 'agent'},server=on,wait=off",
        ]
        words += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
        words += ["-drive", f"file={self.folder / 'root.qcow2'},if=none,id=root,cache=unsafe"]
        words += ["-device", "scsi-hd,drive=root,bootindex=0", "-qmp", f"unix:{self.folder / 'qmp'},server=on,wait=off"]
        for port in [self.console, *self.witnesses]:
            words += ["-chardev", f"socket,id={port.path.name},path={port.path},server=on,wait=off"]
            words += ["-serial", f"chardev:{port.path.name}"]
        for index, iqn in enumerate(self.iqns):
            source = f"driver=iscsi,transport=tcp,portal=127.0.0.1:{self.engine.port},target={iqn},lun=0"
            words += ["-blockdev", f"{source},node-name=disk{index},initiator-name=iqn.2026-01.test:guest{index}"]
            words += ["-device", f"scsi-hd,drive=disk{index},serial=disk{index}"]
        return words

    def boot(self) -> None:
        overlay = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self.image)]
        subprocess.run([*overlay, self.folder / "root.qcow2"], check=True)
        with (self.folder / "qemu.log").open("wb") as log:
            self.process = subprocess.Popen(self.command(), stderr=log)
        ports = [self.console, *self.witnesses]
        deadline = time.monotonic() + 120
        while not all(listens(port.path) for port in ports):
            assert self.process.poll() is None, (self.folder / "qemu.log").read_text()
            assert time.monotonic() < deadline, "QEMU did not open its sockets"
            time.sleep(0.02)
        for port in ports:
            port.open()
        self.console.expect(r"TINY-READY", BOOT_S)
        self.console.write("\r")
        self.console.expect(r"login: *$")
        self.console.write("root\r")
        self.console.expect(r"# ")

    def run(self, command: str) -> str:
        """One line of shell; what it printed. It must succeed."""
        self.prompts += 1
        # The words are split so that the echo of the line does not look like the mark itself.
        with self.console.news:
            self.console.text = ""  # before: the answer may be here before we go on
        self.console.write(f"{command}; echo EN''D{self.prompts} $?\r")
        found = self.console.expect(rf"(?s)(.*)END{self.prompts} (\d+)\n")
        assert found[2] == "0", f"{command}: {found[1]}"
        return found[1]

    def qmp(self, *commands: str) -> list[str]:
        """The answers of QEMU's monitor, as lines of JSON."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.folder / "qmp"))
            lines = monitor.makefile("r")
            lines.readline()
            answers = []
            for command in ["qmp_capabilities", *commands]:
                monitor.sendall(f'{{"execute":"{command}"}}\n'.encode())
                answer = lines.readline()
                while '"return"' not in answer and '"error"' not in answer:
                    assert answer, "QEMU closed its monitor"
                    answer = lines.readline()
                answers.append(answer)
            return answers[1:]

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for port in [self.console, *self.witnesses]:
            port.socket.close()
