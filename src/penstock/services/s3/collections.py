"""Settings of a bucket of which there may be several, each by its id: analytics, inventory, metrics, tiering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstock.kernel import pages
from penstock.kernel.call import Call
from penstock.kernel.errors import ServiceError
from penstock.services.s3 import checks, state

PAGE = 100
MOST = 1000


@dataclass(frozen=True, slots=True)
class Collection:
    """One kind of such settings: `put`, `get`, `list` and `delete` are its operations.

    Takes:
        member: Put's member that holds the value, and Get's.
        many: List's member that holds the values.
    """

    member: str
    many: str

    def put(self, call: Call) -> None:
        """Keeps a configuration. Raises: ServiceError InvalidArgument, TooManyConfigurations."""
        bucket = state.bucket_of(call)
        value = call.params[self.member]
        if value.get("Id") != call.params["Id"]:
            sentence = "The configuration id in the request does not match the one in the body"
            raise checks.invalid(sentence, ArgumentName="id", ArgumentValue=call.params["Id"])
        kept = bucket.body.setdefault("_settings", {}).setdefault(self.member, {})
        kept[value["Id"]] = value
        if len(kept) > MOST:
            sentence = "You are attempting to create a new configuration but have already reached the 1,000-configuration limit."
            raise ServiceError("TooManyConfigurations", sentence)
        call.put(bucket)

    def get(self, call: Call) -> dict[str, Any]:
        """Shows a configuration. Raises: ServiceError NoSuchConfiguration."""
        return {self.member: self._find(call)[call.params["Id"]]}

    def delete(self, call: Call) -> None:
        """Takes a configuration away. Raises: ServiceError NoSuchConfiguration."""
        bucket = state.bucket_of(call)
        kept = self._find(call)
        bucket.body["_settings"][self.member] = {
            name: value for name, value in kept.items() if name != call.params["Id"]
        }
        call.put(bucket)

    def list(self, call: Call) -> dict[str, Any]:
        """Shows a page of the configurations, by id."""
        kept = (state.bucket_of(call).body.get("_settings") or {}).get(self.member) or {}
        token = call.params.get("ContinuationToken")
        after = pages.unseal(token)[0] if token else ""
        names = sorted(name for name in kept if name > after)
        shown = names[:PAGE]
        answer: dict[str, Any] = {self.many: [kept[name] for name in shown], "IsTruncated": len(names) > PAGE}
        if token:
            answer["ContinuationToken"] = token
        if len(names) > PAGE:
            answer["NextContinuationToken"] = pages.seal([shown[-1], ""])
        return answer

    def _find(self, call: Call) -> dict[str, Any]:
        kept: dict[str, Any] = (state.bucket_of(call).body.get("_settings") or {}).get(self.member) or {}
        if call.params["Id"] not in kept:
            raise ServiceError("NoSuchConfiguration", "The specified configuration does not exist.", 404)
        return kept


ANALYTICS = Collection("AnalyticsConfiguration", "AnalyticsConfigurationList")
INVENTORY = Collection("InventoryConfiguration", "InventoryConfigurationList")
METRICS = Collection("MetricsConfiguration", "MetricsConfigurationList")
TIERING = Collection("IntelligentTieringConfiguration", "IntelligentTieringConfigurationList")

put_bucket_analytics_configuration, get_bucket_analytics_configuration = ANALYTICS.put, ANALYTICS.get
delete_bucket_analytics_configuration = ANALYTICS.delete
list_bucket_analytics_configurations = ANALYTICS.list
put_bucket_inventory_configuration, get_bucket_inventory_configuration = INVENTORY.put, INVENTORY.get
delete_bucket_inventory_configuration = INVENTORY.delete
list_bucket_inventory_configurations = INVENTORY.list
put_bucket_metrics_configuration, get_bucket_metrics_configuration = METRICS.put, METRICS.get
delete_bucket_metrics_configuration = METRICS.delete
list_bucket_metrics_configurations = METRICS.list
put_bucket_intelligent_tiering_configuration, get_bucket_intelligent_tiering_configuration = TIERING.put, TIERING.get
delete_bucket_intelligent_tiering_configuration = TIERING.delete
list_bucket_intelligent_tiering_configurations = TIERING.list
