"""What is told of services that are not served."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError


@pytest.mark.parametrize(
    ("service", "operation", "words"),
    [
        ("dynamodb", "list_tables", "The service dynamodb is not served (ListTables)"),
        ("ec2", "describe_vpcs", "The service ec2 is not served"),
        ("codeartifact", "list_domains", "The service codeartifact is not served"),
        ("route53", "list_hosted_zones", "The service route53 is not served"),
    ],
)
def test_a_service_that_is_not_served_is_told_in_its_own_protocol(
    service: str, operation: str, words: str, client: Any
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(client(service), operation)()
    answer = caught.value.response
    assert answer["Error"]["Code"] == "UnknownService"
    assert answer["Error"]["Message"] == f"{words}. `penstock coverage` lists those that are."
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 501
