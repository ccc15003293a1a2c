"""Backends: what Terraform is told, and where states lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tango_cloud.core.errors import ConfigurationError
from tango_cloud.core.sections import TerraformSettings
from tango_cloud.core.settings import Settings, load
from tango_cloud.terraform.backend import (
    Backend,
    backend_block,
    backend_from_settings,
    workspace_name,
)
from tango_cloud.terraform.binary import Binary, Product, Source
from tango_cloud.terraform.state import listed_addresses, listed_workspaces, lock_id

ELSEWHERE = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9000"}


def _backend(place: str, environ: Mapping[str, str] | None = None, **more: str) -> Backend:
    terraform = TerraformSettings(remote_state=place, **more)  # type: ignore[arg-type]
    backend = backend_from_settings(Settings(prefix="Prod.1", terraform=terraform), environ or {})
    assert backend is not None
    return backend


def _arguments(backend: Backend, kind: str = "wave") -> dict[str, Any]:
    arguments: dict[str, Any] = json.loads(backend_block(backend, kind))["terraform"]["backend"][
        "s3"
    ]
    return arguments


def test_states_are_local_files_unless_said() -> None:
    assert backend_from_settings(Settings(), ELSEWHERE) is None


def test_amazons_s3_with_nothing_but_a_bucket() -> None:
    backend = _backend("s3://my-bucket")
    assert str(backend) == "s3://my-bucket/Prod.1/"
    assert _arguments(backend) == {
        "bucket": "my-bucket",
        "key": "tango-cloud.tfstate",
        "workspace_key_prefix": "Prod.1/waves",
        "use_lockfile": True,
        "encrypt": True,
        "skip_credentials_validation": True,
        "skip_requesting_account_id": True,
    }


def test_everything_that_can_be_said() -> None:
    key = "arn:aws:kms:eu-west-1:123456789012:key/1"
    backend = _backend(
        "s3://my.bucket/team/states/",
        ELSEWHERE,
        remote_state_region="eu-west-1",
        remote_state_kms_key=key,
    )
    arguments = _arguments(backend, "envelope")
    assert str(backend) == "s3://my.bucket/team/states/Prod.1/"
    assert arguments["workspace_key_prefix"] == "team/states/Prod.1/envelope"
    assert (arguments["region"], arguments["kms_key_id"]) == ("eu-west-1", key)
    assert arguments["use_path_style"]
    assert arguments["skip_region_validation"]


@pytest.mark.parametrize(
    "place",
    ["my-bucket", "gs://my-bucket", "s3://", "s3://My_Bucket", "s3://my-bucket/a b", "s3://b/${x}"],
)
def test_a_place_that_cannot_be_is_refused(place: str) -> None:
    with pytest.raises(ConfigurationError, match=r"terraform\.remote_state"):
        load({"terraform": {"remote_state": place}})


@pytest.mark.parametrize("product", Product)
def test_a_terraform_that_cannot_lock_there_is_refused(product: Product) -> None:
    backend = _backend("s3://my-bucket")
    backend.check(Binary(("x",), product, (1, 10, 0), Source.PATH))
    with pytest.raises(ConfigurationError, match=rf"{product} 1\.9\.8 cannot lock .* 1\.10\.0"):
        backend.check(Binary(("x",), product, (1, 9, 8), Source.PATH))


@pytest.mark.parametrize(
    ("stack", "name"),
    [("0123456789ab", "0123456789ab"), ("aws", "aws"), ("a b/c", "a_20_b_2f_c")],
)
def test_a_stack_is_a_workspace(stack: str, name: str) -> None:
    assert workspace_name(stack) == name


def test_no_stack_is_the_default_workspace() -> None:
    assert workspace_name("default") not in ("default", workspace_name("_default"))


def test_what_terraform_lists() -> None:
    assert listed_workspaces("* default\n  w1\n  w2\n\n") == ["default", "w1", "w2"]
    listed = 'b.c["1"]\na.b\ndata.x.y\nmodule.m.data.x.y\nmodule.m.a.b\n'
    assert listed_addresses(listed) == ["a.b", 'b.c["1"]', "module.m.a.b"]


def test_the_lock_in_an_error() -> None:
    plain = "Error: locked\n\nLock Info:\n  ID:        1-2-3\n  Path:      x\n  Who:       me\n"
    framed = "│ \x1b[0mRequestID: 9\n│ Lock Info:\n│   ID:        1-2-3\n"
    assert lock_id(plain) == lock_id(framed) == "1-2-3"
    assert lock_id("StatusCode: 404, RequestID: 9, HostID: 8") is None
