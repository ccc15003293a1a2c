"""What Terraform asks of a plugin, in its protocol 6. Many threads are in here at once."""

from __future__ import annotations

import json
import os
import threading
import traceback
from collections.abc import Mapping
from typing import Any

from tf.gen import tfplugin_pb2 as pb
from tf.gen import tfplugin_pb2_grpc as rpc
from tf.utils import Diagnostics, _to_attribute_path, read_dynamic_value, to_dynamic_value

from .compute import Compute, Endpoint, NotLoopback, Refused
from .instance import Instance
from .resources import Firewall, Kind, Network, Subnetwork, Tainted, read_subnetwork
from .schema import Block, Schema, Values, filled, given, is_unknown, planned, refreshed, same

KINDS: Mapping[str, Kind] = {
    "google_compute_network": Network(),
    "google_compute_subnetwork": Subnetwork(),
    "google_compute_firewall": Firewall(),
    "google_compute_instance": Instance(),
}
_ATTRIBUTION = {"goog-terraform-provisioned": "true"}
_PROJECTS = ("GOOGLE_PROJECT", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT")
_TOKENS = ("GOOGLE_OAUTH_ACCESS_TOKEN",)
_ENDPOINTS = ("GOOGLE_COMPUTE_CUSTOM_ENDPOINT",)
_IGNORED = {"timeouts.create", "timeouts.update", "timeouts.delete"}


class Service(rpc.ProviderServicer):
    def __init__(self, schema: Schema) -> None:
        self.stop = threading.Event()
        self._schema = schema
        self._compute: Compute | None = None

    # The names are the protocol's.

    def GetMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.GetMetadata.Response(server_capabilities=pb.ServerCapabilities())

    def GetProviderSchema(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._schema.response()

    def ValidateProviderConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ValidateProviderConfig.Response()

    def ValidateResourceConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ValidateResourceConfig.Response()

    def ValidateDataResourceConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.ValidateDataResourceConfig.Response()

    def UpgradeResourceState(self, request: Any, context: Any) -> Any:  # noqa: N802
        state = json.loads(request.raw_state.json)
        return pb.UpgradeResourceState.Response(upgraded_state=to_dynamic_value(state))

    def ConfigureProvider(self, request: Any, context: Any) -> Any:  # noqa: N802
        diagnostics = Diagnostics()
        try:
            self._compute = self._configured(read_dynamic_value(request.config))
        except (NotLoopback, Refused) as error:
            diagnostics.add_error(f"Simulated plugin: {error}")
        return pb.ConfigureProvider.Response(diagnostics=diagnostics.to_pb())

    def _configured(self, config: Values) -> Compute:
        endpoint = Endpoint.parse(_setting(config, "compute_custom_endpoint", _ENDPOINTS))
        if not (token := _setting(config, "access_token", _TOKENS)):
            raise Refused("no access token: this plugin takes no other credentials")
        if not (project := _setting(config, "project", _PROJECTS)):
            raise Refused("project: required field is not set")
        labels = dict(config["default_labels"] or {})
        if config["add_terraform_attribution_label"] is not False:
            labels |= _ATTRIBUTION
        return Compute(endpoint, project, token, labels, self.stop)

    def ReadResource(self, request: Any, context: Any) -> Any:  # noqa: N802
        diagnostics = Diagnostics()
        state = read_dynamic_value(request.current_state)
        try:
            kind = KINDS[request.type_name]
            known = kind.read(self._api(), state)
            block = self._schema.resource(request.type_name)
            state = None if known is None else refreshed(block, state, _ours(kind, block, known))
        except Refused as refused:
            diagnostics.add_error(str(refused))
        return pb.ReadResource.Response(
            new_state=to_dynamic_value(state), diagnostics=diagnostics.to_pb()
        )

    def ReadDataSource(self, request: Any, context: Any) -> Any:  # noqa: N802
        diagnostics = Diagnostics()
        config = read_dynamic_value(request.config)
        state = None
        try:
            known = read_subnetwork(self._api(), config)
            block = self._schema.data_sources[request.type_name]["block"]
            state = filled(block, planned(block, config), known)
        except Refused as refused:
            diagnostics.add_error(str(refused))
        return pb.ReadDataSource.Response(
            state=to_dynamic_value(state), diagnostics=diagnostics.to_pb()
        )

    def PlanResourceChange(self, request: Any, context: Any) -> Any:  # noqa: N802
        diagnostics = Diagnostics()
        kind = KINDS[request.type_name]
        block = self._schema.resource(request.type_name)
        prior = read_dynamic_value(request.prior_state)
        proposed = read_dynamic_value(request.proposed_new_state)
        if proposed is None:
            return pb.PlanResourceChange.Response(planned_state=to_dynamic_value(None))
        changed = [] if prior is None else _changed(prior, proposed)
        # Of one that is there: its state is the configuration of what is ignored.
        config = read_dynamic_value(request.config)
        arguments = given(block, config) if prior is None else changed
        for argument in sorted(set(arguments) - _simulated(kind) - _IGNORED):
            diagnostics.add_error(
                f"Simulated plugin: {request.type_name}.{argument} is not simulated"
            )
        return pb.PlanResourceChange.Response(
            planned_state=to_dynamic_value(planned(block, proposed) if prior is None else proposed),
            requires_replace=[
                _to_attribute_path([name]) for name in changed if name in kind.replaced_by
            ],
            diagnostics=diagnostics.to_pb(),
        )

    def ApplyResourceChange(self, request: Any, context: Any) -> Any:  # noqa: N802
        diagnostics = Diagnostics()
        prior = read_dynamic_value(request.prior_state)
        wanted = read_dynamic_value(request.planned_state)
        try:
            state = self._applied(request.type_name, prior, wanted)
        except Tainted as tainted:
            block = self._schema.resource(request.type_name)
            state = filled(block, wanted, tainted.known)
            diagnostics.add_error(str(tainted))
        except Refused as refused:
            state = prior
            diagnostics.add_error(str(refused))
        except Exception:
            state = prior
            diagnostics.add_error("Simulated plugin: a fault of its own", traceback.format_exc())
        return pb.ApplyResourceChange.Response(
            new_state=to_dynamic_value(state), diagnostics=diagnostics.to_pb()
        )

    def _applied(self, name: str, prior: Values | None, wanted: Values | None) -> Values | None:
        kind, api = KINDS[name], self._api()
        if wanted is None:
            kind.delete(api, prior or {})
            return None
        known = kind.create(api, _null_unknown(wanted)) if prior is None else {}
        if prior is not None:
            known = kind.update(api, wanted)
        return filled(self._schema.resource(name), wanted, known)

    def _api(self) -> Compute:
        if self._compute is None:
            raise Refused("Simulated plugin: it is not configured")
        return self._compute

    def StopProvider(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.stop.set()
        return pb.StopProvider.Response()

    def GetFunctions(self, request: Any, context: Any) -> Any:  # noqa: N802
        return pb.GetFunctions.Response()


def _setting(config: Values, name: str, variables: tuple[str, ...]) -> str:
    value = config.get(name)
    if isinstance(value, str) and value:
        return value
    return next((os.environ[name] for name in variables if os.environ.get(name)), "")


def _ours(kind: Kind, block: Block, known: Values) -> Values:
    """Without arguments that are not simulated: their defaults are not known here."""
    return {
        name: value
        for name, value in known.items()
        if name in _simulated(kind) or block["attributes"].get(name, {}).get("computed")
    }


def _simulated(kind: Kind) -> frozenset[str]:
    return kind.simulated | {name.split(".")[0] for name in kind.simulated}


def _changed(prior: Values, proposed: Values) -> list[str]:
    return [name for name in proposed if not same(prior.get(name), proposed[name])]


def _null_unknown(values: Any) -> Any:
    """What the API is not told: it will say it."""
    if isinstance(values, dict):
        return {name: _null_unknown(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_null_unknown(value) for value in values]
    return None if is_unknown(values) else values
