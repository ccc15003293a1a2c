"""Terraform's event lines, as it writes them and as it might."""

from __future__ import annotations

import json

import pytest

from tango_cloud.terraform.events import (
    Diagnostic,
    Event,
    Outputs,
    ResourceDone,
    ResourceErrored,
    ResourceStarted,
    Summary,
    Unknown,
    parse,
    split_address,
)

ADDRESS = 'terraform_data.machine["0123456789ab"]'
RESOURCE = {"addr": ADDRESS, "resource": ADDRESS, "resource_key": "0123456789ab"}


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (
            {"type": "apply_start", "hook": {"resource": RESOURCE, "action": "create"}},
            ResourceStarted("terraform_data.machine", "0123456789ab", "create"),
        ),
        (
            {
                "type": "apply_complete",
                "hook": {
                    "resource": RESOURCE,
                    "action": "create",
                    "id_key": "id",
                    "id_value": "i-0123456789ab",
                    "elapsed_seconds": 3,
                },
            },
            ResourceDone("terraform_data.machine", "0123456789ab", "create", "i-0123456789ab", 3.0),
        ),
        (
            {
                "type": "apply_errored",
                "hook": {"resource": RESOURCE, "action": "delete", "elapsed_seconds": 3},
            },
            ResourceErrored("terraform_data.machine", "0123456789ab", "delete"),
        ),
        (
            {
                "type": "diagnostic",
                "diagnostic": {
                    "severity": "error",
                    "summary": "local-exec provisioner error",
                    "detail": "exit status 1",
                    "address": ADDRESS,
                },
            },
            Diagnostic(
                "error",
                "local-exec provisioner error",
                "exit status 1",
                "terraform_data.machine",
                "0123456789ab",
            ),
        ),
        (
            {"type": "diagnostic", "diagnostic": {"severity": "warning", "summary": "careful"}},
            Diagnostic("warning", "careful", ""),
        ),
        (
            {
                "type": "outputs",
                "outputs": {
                    "machines": {"sensitive": False, "value": {}},
                    "s": {"sensitive": True},
                },
            },
            Outputs({"machines": {}}),
        ),
        (
            {
                "type": "change_summary",
                "changes": {"add": 2, "change": 0, "remove": 1, "operation": "apply"},
            },
            Summary("apply", 2, 0, 1),
        ),
    ],
)
def test_known_events(message: dict[str, object], event: Event) -> None:
    assert parse(json.dumps(message)) == event


@pytest.mark.parametrize(
    "line",
    [
        "",
        "not json",
        "[]",
        "3",
        "null",
        '{"type": "invented_tomorrow"}',
        '{"type": "apply_complete"}',
        '{"type": "apply_complete", "hook": {"resource": {"addr": 3}}}',
        '{"type": "change_summary", "changes": {"operation": "apply"}}',
        '{"type": "outputs", "outputs": []}',
        '{"cut": "of',
        "[" * 100_000,
    ],
)
def test_whatever_else_comes_is_unknown_and_never_an_error(line: str) -> None:
    assert parse(line) == Unknown(line)


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("a.b", ("a.b", "")),
        ('a.b["k"]', ("a.b", "k")),
        ('module.m["x"].a.b["k"]', ('module.m["x"].a.b', "k")),
        ('a.b["quo\\"te"]', ("a.b", 'quo"te')),
        ("a.b[0]", ("a.b[0]", "")),
        ("", ("", "")),
    ],
)
def test_an_address_gives_its_key(address: str, parts: tuple[str, str]) -> None:
    assert split_address(address) == parts
