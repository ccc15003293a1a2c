"""`tango-cloud reconcile` and `recover`: what there is, against what should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from tango_cloud.api import Cloud
from tango_cloud.cli.display import errors, out, print_json, print_table, unwatched
from tango_cloud.cli.exit_codes import ExitCode
from tango_cloud.orchestration.findings import Action
from tango_cloud.orchestration.mending import Outcome

_Json = Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")]


def reconcile(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what is wrong; exit code 1 if anything is.")
    ] = False,
    as_json: _Json = False,
) -> None:
    """Hold cloud, ledger and states against each other, and mend what disagrees.

    Made for cron: it is quiet when all is well, and safe beside everything else that runs.

    **Examples:** `tango-cloud reconcile --dry-run` · `*/10 * * * * tango-cloud reconcile`
    """
    with Cloud() as cloud, errors.status("looking"):
        outcomes = cloud.reconcile(dry_run=dry_run)
    _print(outcomes, as_json=as_json, done=not dry_run)
    if dry_run and any(outcome.finding.open for outcome in outcomes):
        raise typer.Exit(ExitCode.JOB_FAILED)


def recover(as_json: _Json = False) -> None:
    """Put machines back on the books that the cloud has and the ledger has lost, by their tags.

    Machines whose host key is not known in this state folder cannot be trusted any more: they are
    told, and destroyed by the next `reconcile`.

    **Example:** `tango-cloud recover`
    """
    with Cloud() as cloud, errors.status("looking"):
        outcomes = cloud.recover()
    _print(outcomes, as_json=as_json, done=True)


def _print(outcomes: Sequence[Outcome], *, as_json: bool, done: bool) -> None:
    """Raises Exit when something could not be mended."""
    if as_json:
        print_json(_row(outcome, done) for outcome in outcomes)
    elif outcomes:
        print_table(
            ("what", "cloud", "id", "machine", "because", "action", "result"),
            [
                (
                    outcome.finding.kind,
                    outcome.finding.provider,
                    outcome.finding.subject,
                    _name(outcome),
                    outcome.finding.detail,
                    outcome.finding.action,
                    _result(outcome, done),
                )
                for outcome in outcomes
            ],
        )
    elif not (done and unwatched()):
        out.print("cloud, ledger and states agree")
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(ExitCode.INFRASTRUCTURE)


def _row(outcome: Outcome, done: bool) -> dict[str, Any]:
    finding = outcome.finding
    return {
        "kind": finding.kind,
        "provider": finding.provider,
        "subject": finding.subject,
        "instance_name": _name(outcome) or None,
        "detail": finding.detail,
        "action": finding.action,
        "done": done and finding.open and not outcome.error,
        "error": outcome.error or None,
    }


def _name(outcome: Outcome) -> str:
    key = outcome.finding.key
    return key.instance_name if key is not None else ""


def _result(outcome: Outcome, done: bool) -> str:
    if outcome.error:
        return f"failed: {outcome.error}"
    if outcome.finding.action is Action.WAIT:
        return "later"
    if not outcome.finding.open:
        return ""
    return "done" if done else "to do"
