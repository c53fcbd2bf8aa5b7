"""The demo: ``python -m gespann.main.demo``, which is `make demo`.

In a lab of its own it does the main job from end to end, checks what it shows, and takes the lab away again, also when
it is interrupted. Exit status: 0 if everything was as shown, 1 with the reason and the ends of the logs, 130 if it was
interrupted.
"""

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from gespann.demo.doors import describe
from gespann.demo.job import Job
from gespann.demo.show import Show
from gespann.demo.site import PROJECT, Site, SiteError
from gespann.demo.user import CheckFailed
from gespann.lab import LabError
from gespann.main import lab
from gespann.system.files import hold_lock
from gespann.system.processes import CommandFailed

DIRECTORY = PROJECT / "var/demo"
NAME = "gdemo"
NET = "198.18.94"
STEPS = 8
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, a terminal that was closed

KEEP = """\
To have it to yourself: `make up` starts the same array group and pool, to stay; `make down` stops them and
leaves nothing behind. Everything is then found here:
"""


def interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def perform(site: Site, show: Show) -> int:
    try:
        Job(site, show).run()
    except (CheckFailed, SiteError, LabError, CommandFailed) as error:
        show.failure(str(error))
        with contextlib.suppress(LabError, OSError):
            show.say(site.log_tails())
        return 1
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):  # the terminal may be gone
            show.say("\ninterrupted; the lab is taken away")
        return 130
    return 0


def summary(show: Show, took_s: float) -> None:
    show.console.print("\n[bold]Done.[/bold] Every step was checked:")
    for number, (title, step_s) in enumerate(show.times, 1):
        show.console.print(f"  {number}  {title:60} {step_s:6.1f} s")
    show.console.print(f"  {'':63} {took_s:6.1f} s in all\n")
    show.console.print(KEEP)
    show.console.print(describe(lab.site().access), markup=False)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="gespann-demo", description="The main job, step by step, checked.")
    parser.add_argument("--directory", type=Path, default=DIRECTORY)
    parser.add_argument("--name", default=NAME, help="begins the names of its namespaces")
    parser.add_argument("--net", default=NET, help="first three octets of its first network")
    options = parser.parse_args(words)
    for sig in ENDINGS:
        signal.signal(sig, interrupt)
    show = Show(STEPS)
    try:
        with only_one(options.directory):
            return demo(Site(options.directory, options.name, options.net), show)
    except (LabError, CommandFailed) as error:
        show.failure(str(error))
        return 1
    except KeyboardInterrupt:
        show.say("interrupted")
        return 130


def demo(site: Site, show: Show) -> int:
    began = time.monotonic()
    try:
        site.down()  # what an earlier demo may have left
        status = perform(site, show)
    finally:
        for sig in ENDINGS:
            signal.signal(sig, signal.SIG_IGN)  # a second Ctrl-C must not stop the cleaning up
        with show.life.waiting("the lab is taken away"):
            site.down()
    if status == 0:
        summary(show, time.monotonic() - began)
    return status


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """LabError: a second demo would take away the lab of the first."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        with hold_lock(directory.with_name(f"{directory.name}.lock")):
            yield
    except BlockingIOError:
        raise LabError(f"another demo runs in {directory}; wait for its end") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
