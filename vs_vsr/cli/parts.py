"""`vs-vsr plan`, `part` and `join`: the three steps of `upscale`, for any scheduler of jobs."""

import argparse
import os
from functools import partial
from pathlib import Path

from vs_vsr.cli.answers import Commands, add_command, tell
from vs_vsr.cli.options import add_options, requests
from vs_vsr.errors import JobError
from vs_vsr.job.plan import JobPlan

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add the commands."""
    planning = add_command(
        commands,
        "plan",
        _plan,
        "make the plan of a job and nothing else; print its folder and the number of its parts",
    )
    add_options(planning)
    making = add_command(commands, "part", _part, "make parts of a job that is planned")
    making.add_argument("job", type=Path, metavar="JOB", help="the folder that plan printed")
    making.add_argument("numbers", nargs="+", type=int, metavar="K", help="from 0")
    making.add_argument("--device", default="auto", help="auto, cpu, cuda:0, …")
    joining = add_command(
        commands, "join", _join, "join the parts of a job, and remove them once the file is checked"
    )
    joining.add_argument("job", type=Path, metavar="JOB", help="the folder that plan printed")
    joining.add_argument("--force", action="store_true", help="overwrite the file")


# The functions below import what `vs-vsr doctor` has to do without.


def _plan(args: argparse.Namespace) -> int:
    from vs_vsr.cli.display import Display
    from vs_vsr.job.local import Events, Workers

    for request in requests(args):
        with Display(Path(request.source).name) as display:
            events = Events(
                phase=display.phase,
                progress=display.progress,
                ended=lambda part, done: None,
                log=display.say,
            )
            with Workers(args.device, events) as workers:
                plan, folder, notes = workers.plan(request)
            for note in notes:
                display.say(note)
        tell(f"{folder} {len(plan.parts)}")
    return 0


def _part(args: argparse.Namespace) -> int:
    from vs_vsr.cli.display import Display
    from vs_vsr.job.part import part

    folder = args.job.absolute()
    for number in args.numbers:
        with Display(f"{folder.name}/{number}") as display:
            plan = JobPlan.load(folder)
            if 0 <= number < len(plan.parts):
                first, last = plan.parts[number]
                display.parts(total=last - first, done=0, chunk=1, seconds_each=0, bytes_each=0)
            part(folder, number, display.progress, device=args.device)
    return 0


def _join(args: argparse.Namespace) -> int:
    from vs_vsr.cli.display import Display, size
    from vs_vsr.job.folder import is_done, locked, remove
    from vs_vsr.job.join import join

    folder = args.job.absolute()
    plan = JobPlan.load(folder)
    missing = [k for k in range(len(plan.parts)) if not is_done(plan, folder, k)]
    if missing:
        shown = ", ".join(map(str, missing[:10])) + (", …" if missing[10:] else "")
        raise JobError(
            f"all parts must be done, got {len(plan.parts) - len(missing)} of {len(plan.parts)} "
            f"(missing: {shown}). Make them with vs-vsr part {folder} K."
        )
    with Display(Path(plan.out).name) as display:
        with locked(folder):
            join(plan, folder, partial(display.phase, "joining the parts"), force=args.force)
        remove(plan, folder)
        display.say(f"{plan.out} is done: {size(os.path.getsize(plan.out))}.")
    return 0
