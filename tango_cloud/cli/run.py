"""`tango-cloud run`: every directory is a job."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from tango_cloud.api import Cloud
from tango_cloud.cli.display import duration, errors, out, print_json, print_table
from tango_cloud.cli.exit_codes import ExitCode
from tango_cloud.cli.interruption import saying_what_is_left
from tango_cloud.core.errors import Fault, InputError
from tango_cloud.jobs.job import Job, JobResult, JobStatus
from tango_cloud.orchestration.burst import Happening, Step
from tango_cloud.transports.protocol import ArtifactStatus

_EDGE_BYTES = 64 * 1024
"""As much as is read from either end of an output file to show its first and last lines."""


def run(
    directories: Annotated[
        list[Path], typer.Argument(metavar="JOB_DIR...", help="Directories with a Makefile.")
    ],
    provider: Annotated[
        str | None, typer.Option(help="Where to make the machines. [default: settings, `local`]")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Image of the machines.")] = None,
    cores: Annotated[int | None, typer.Option(min=1, help="Cores of each machine.")] = None,
    memory: Annotated[
        int | None, typer.Option(min=1, metavar="MIB", help="Memory of each machine in MiB.")
    ] = None,
    machines: Annotated[
        int, typer.Option("--machines", "-m", min=1, help="Most machines at once.")
    ] = 4,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help="Wall time of each job."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for the output files.")
    ] = Path("output"),
    artifacts: Annotated[
        list[str] | None,
        typer.Option(
            "--artifact",
            "-a",
            metavar="PATH",
            help="File or directory that the jobs make, to be fetched. May be repeated.",
        ),
    ] = None,
    network: Annotated[
        bool, typer.Option("--network/--no-network", help="Whether jobs may use the network.")
    ] = True,
    transport: Annotated[
        str | None,
        typer.Option(help="What carries the jobs: `ssh` or `ansible`. [default: settings, `ssh`]"),
    ] = None,
    show: Annotated[
        int | None,
        typer.Option(
            min=0, metavar="LINES", help="Lines of each output to show. [default: 0 when piped]"
        ),
    ] = None,
    keep: Annotated[bool, typer.Option(help="Leave the machines running.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
) -> None:
    """Run jobs side by side, each on a machine of its own that Terraform makes.

    Ctrl-C stops the jobs and destroys what was made; a second Ctrl-C says what is left.

    **Examples:**

    * `tango-cloud run hw1/alice hw1/bob` runs two submissions on two machines.

    * `tango-cloud run hw1/* --machines 20 --timeout 60 --output results` runs a whole class.

    * `tango-cloud run hw1/* --artifact report.xml --artifact build/plots` fetches those as well.

    * `tango-cloud run hw1/alice --json | jq '.[0].exit_status'` is for scripts.
    """
    cloud = Cloud({"provider": provider} if provider else None)
    with cloud:
        jobs = _load(
            cloud,
            directories,
            timeout_seconds=timeout,
            network=network,
            artifacts=artifacts or (),
            transport=transport,
        )
        for warning in cloud.warnings():
            errors.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
        results = _run(
            cloud,
            jobs,
            output_dir=output,
            machines=machines,
            shape=cloud.shape(image, cores, memory),
            keep=keep,
        )
    if any(result.level == "limits" for result in results):
        errors.print(
            "warning: only limits kept these jobs from their machine; tango-cloud doctor says why",
            style="yellow",
        )
    lines = show if show is not None else (15 if out.is_terminal and not as_json else 0)
    if lines:
        for result in results:
            _show(result, lines)
    if as_json:
        print_json(_as_row(result) for result in results)
    else:
        _print_results(results)
    raise typer.Exit(_exit_code(results))


def _load(cloud: Cloud, directories: Sequence[Path], **options: Any) -> Sequence[Job]:
    """The jobs; all faults of all of them are raised together, before any machine is made."""
    jobs: list[Job] = []
    faults: list[Fault] = []
    for directory in directories:
        try:
            jobs.append(cloud.job(directory, **options))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(list(dict.fromkeys(faults)))  # what is wrong with options is so for each
    return jobs


def _run(cloud: Cloud, jobs: Sequence[Job], **options: Any) -> Sequence[JobResult]:
    with saying_what_is_left(cloud), _progress(len(jobs)) as on_happening:
        return cloud.run(jobs, on_happening=on_happening, **options)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A progress display on stderr, for people only: a pipe gets nothing."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, disable=not errors.is_terminal) as progress:
        requested, ready = set[str](), set[str]()
        machines = progress.add_task("machines ready", total=None)
        jobs = progress.add_task("jobs done", total=total)

        def on_happening(happening: Happening) -> None:
            match happening.step:
                case Step.MACHINE_REQUESTED:
                    requested.add(happening.machine)
                case Step.MACHINE_READY:
                    ready.add(happening.machine)
                case Step.JOB_ENDED if happening.result is not None:
                    progress.advance(jobs)
                    if errors.is_terminal:
                        progress.console.print(_line(happening.result), highlight=False)
                case _:
                    return
            progress.update(machines, total=len(requested), completed=len(ready))

        yield on_happening


def _line(result: JobResult) -> Text:
    colour = "green" if result.status is JobStatus.PASSED else "red"
    rest = f" {result.job} ({duration(result.seconds)})"
    return Text.assemble((str(result.status), colour), rest)


def _show(result: JobResult, lines: int) -> None:
    out.rule(Text(f"{result.job}: {result.status}"), align="left")
    text = _edges(result.output, lines) if result.output else result.detail
    out.print(text, markup=False, highlight=False, soft_wrap=True)


def _edges(file: Path, lines: int) -> str:
    """The first and last lines of `file`, without reading the megabytes between them."""
    size = file.stat().st_size
    with file.open("rb") as handle:
        head = handle.read(_EDGE_BYTES)
        tail = b""
        if size > _EDGE_BYTES:
            handle.seek(max(_EDGE_BYTES, size - _EDGE_BYTES))
            tail = handle.read()
    found = (head + tail).decode("utf-8", "replace").splitlines()
    if len(found) <= lines and not tail:
        return "\n".join(found)
    first = (lines + 1) // 2
    last = found[len(found) - (lines - first) :] if lines > first else []
    return "\n".join([*found[:first], f"[... all of it ({size:,} bytes) is in {file}]", *last])


def _as_row(result: JobResult) -> dict[str, Any]:
    row = dataclasses.asdict(result)
    times = {
        step: at and at.isoformat(timespec="milliseconds") for step, at in row["times"].items()
    }
    return {**row, "times": times}


def _print_results(results: Sequence[JobResult]) -> None:
    print_table(
        ("job", "status", "make", "time", "output", "machine", "note"),
        [
            (
                result.job,
                result.status,
                "" if result.exit_status is None else str(result.exit_status),
                duration(result.seconds),
                str(result.output or ""),
                result.machine,
                result.detail or _unfetched(result),
            )
            for result in results
        ],
    )


def _unfetched(result: JobResult) -> str:
    """The artifacts that did not come, or not whole."""
    notes = [
        f"{artifact.path}: {artifact.status}"
        for artifact in result.artifacts
        if artifact.status is not ArtifactStatus.FETCHED
    ]
    notes += [
        f"{artifact.path}: {artifact.left_out} left out"
        for artifact in result.artifacts
        if artifact.left_out
    ]
    return ", ".join(notes)


def _exit_code(results: Sequence[JobResult]) -> int:
    statuses = {result.status for result in results}
    if statuses & {JobStatus.ERROR, JobStatus.CANCELLED}:
        return ExitCode.INFRASTRUCTURE
    return ExitCode.OK if statuses <= {JobStatus.PASSED} else ExitCode.JOB_FAILED
