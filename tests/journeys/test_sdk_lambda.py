"""What scripts do with the SageMaker SDK's Lambda helper and its Lambda step."""

from __future__ import annotations

import pytest

from tests.journeys.test_sdk_v2 import START
from tests.programs import Desk

pytestmark = [pytest.mark.sandbox, pytest.mark.clients]
FUNCTION = """
import json
def handler(event, context):
    return {"statusCode": 200, "body": json.dumps(event), "large": event["size"] > 2}
"""
HELPER = """
from sagemaker.lambda_helper import Lambda
def helper(script):
    return Lambda(function_name="of-the-sdk", execution_role_arn=role, script=os.path.join(here, script), handler="function.handler",
                  timeout=30, session=session)
"""
LIFE = """
import shutil
made = helper("function.py").create()
found = helper("function.py").invoke()
archive = shutil.make_archive(os.path.join(here, "zipped"), "zip", here, "function.py")
zipped = Lambda(function_name="of-the-sdk", execution_role_arn=role, zipped_code_dir=archive,
                handler="function.handler", session=session)
updated = zipped.upsert()
zipped.delete()
print(json.dumps({"made": made["Runtime"], "error": found.get("FunctionError"), "updated": updated["FunctionArn"] == made["FunctionArn"]}))
"""
STEP = """
from sagemaker.workflow.lambda_step import LambdaOutput, LambdaOutputTypeEnum, LambdaStep
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import ConditionEquals
from sagemaker.workflow.fail_step import FailStep
from sagemaker.workflow.functions import Join
from sagemaker.workflow.parameters import ParameterInteger
size = ParameterInteger("Size", 3)
outputs = [
    LambdaOutput("statusCode", LambdaOutputTypeEnum.Integer), LambdaOutput("body", LambdaOutputTypeEnum.String),
    LambdaOutput("large", LambdaOutputTypeEnum.Boolean),
]
step = LambdaStep("Look", lambda_func=helper("function.py"), inputs={"size": size}, outputs=outputs)
fail = FailStep("Told", Join(on=" ", values=[step.properties.Outputs["statusCode"], step.properties.Outputs["body"]]))
gate = ConditionStep("Gate", conditions=[ConditionEquals(step.properties.Outputs["large"], True)], if_steps=[fail], else_steps=[])
pipeline = Pipeline("Looking", parameters=[size], steps=[step, gate], sagemaker_session=session)
pipeline.upsert(role)
small = pipeline.start(parameters={"Size": 1})
large = pipeline.start()
status = [ended(small), ended(large)]
print(json.dumps({"status": status, "told": shown(large)["Told"]["FailureReason"], "small": sorted(shown(small))}))
"""


def test_the_helper_makes_invokes_updates_and_deletes_a_function(v2: Desk) -> None:
    told = v2.ended(v2.begin(START + HELPER + LIFE, function__py=FUNCTION)).result
    assert told == {"made": "python3.8", "error": "Unhandled", "updated": True}  # there is no "size" in an empty event


def test_a_lambda_step_decides_what_goes_on(v2: Desk) -> None:
    told = v2.ended(v2.begin(START + HELPER + STEP, function__py=FUNCTION)).result
    assert told["status"] == ["Succeeded", "Failed"]
    assert told["told"] == '200 {"size": 3}'
    assert told["small"] == ["Gate", "Look"]
