"""The same pipeline with version 3 of the SageMaker Python SDK (pip install 'sagemaker>=3'): creates it, starts it, waits."""
import os
import sys
import time

from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.model_metrics import MetricsSource, ModelMetrics
from sagemaker.core.processing import ScriptProcessor
from sagemaker.core.shapes import ProcessingInput, ProcessingOutput, ProcessingS3Input, ProcessingS3Output
from sagemaker.core.workflow.conditions import ConditionGreaterThanOrEqualTo
from sagemaker.core.workflow.functions import Join, JsonGet
from sagemaker.core.workflow.parameters import ParameterFloat, ParameterString
from sagemaker.core.workflow.pipeline_context import PipelineSession
from sagemaker.core.workflow.properties import PropertyFile
from sagemaker.mlops.workflow.condition_step import ConditionStep
from sagemaker.mlops.workflow.model_step import ModelStep
from sagemaker.mlops.workflow.pipeline import Pipeline
from sagemaker.mlops.workflow.steps import ProcessingStep, TrainingStep
from sagemaker.serve.model_builder import ModelBuilder
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData

HERE = os.path.dirname(os.path.abspath(__file__))
PIPELINE_NAME = "MLOpsPipeline-v3"
MODEL_PACKAGE_GROUP = "mlops-pipeline-models"
PREFIX = "mlops-pipeline-v3"


def s3_input(name, uri, path):
    source = ProcessingS3Input(
        s3_uri=uri, local_path=path, s3_data_type="S3Prefix", s3_input_mode="File", s3_data_distribution_type="FullyReplicated"
    )
    return ProcessingInput(input_name=name, s3_input=source)


def s3_output(name, uri):
    target = ProcessingS3Output(s3_uri=uri, local_path=f"/opt/ml/processing/{name}", s3_upload_mode="EndOfJob")
    return ProcessingOutput(output_name=name, s3_output=target)


def build(role):
    session, pipeline_session = Session(), PipelineSession()
    region, bucket = session.boto_region_name, session.default_bucket()
    base = f"s3://{bucket}/{PREFIX}"
    session.boto_session.client("s3").upload_file(
        os.path.join(HERE, "data", "bank-additional.csv"), bucket, f"{PREFIX}/data/bank-additional.csv"
    )

    processing_instance_type = ParameterString(name="ProcessingInstanceType", default_value="ml.m5.xlarge")
    training_instance_type = ParameterString(name="TrainingInstanceType", default_value="ml.m5.xlarge")
    accuracy_threshold = ParameterFloat(name="AccuracyThreshold", default_value=0.75)
    sklearn = image_uris.retrieve(
        framework="sklearn", region=region, version="1.2-1", py_version="py3", instance_type="ml.m5.xlarge"
    )
    xgboost = image_uris.retrieve(
        framework="xgboost", region=region, version="1.7-1", py_version="py3", instance_type="ml.m5.xlarge"
    )

    processor = ScriptProcessor(
        image_uri=sklearn,
        command=["python3"],
        instance_type=processing_instance_type,
        instance_count=1,
        base_job_name="preprocess",
        sagemaker_session=pipeline_session,
        role=role,
    )
    preprocess = ProcessingStep(
        name="PreprocessData",
        step_args=processor.run(
            code=os.path.join(HERE, "preprocess.py"),
            inputs=[s3_input("data", f"{base}/data/bank-additional.csv", "/opt/ml/processing/input")],
            outputs=[s3_output(name, f"{base}/{name}") for name in ("train", "validation", "test")],
            arguments=["--test-size", "0.2"],
        ),
    )
    outputs = preprocess.properties.ProcessingOutputConfig.Outputs

    trainer = ModelTrainer(
        training_image=xgboost,
        compute=Compute(instance_type=training_instance_type, instance_count=1),
        base_job_name="train",
        sagemaker_session=pipeline_session,
        role=role,
        hyperparameters={
            "objective": "binary:logistic",
            "eval_metric": "auc",
            "num_round": 100,
            "max_depth": 4,
            "eta": 0.1,
            "subsample": 0.8,
            "seed": 42,
        },
        input_data_config=[
            InputData(channel_name=name, data_source=outputs[name].S3Output.S3Uri, content_type="text/csv")
            for name in ("train", "validation")
        ],
    )
    train = TrainingStep(name="TrainModel", step_args=trainer.train())
    artifacts = train.properties.ModelArtifacts.S3ModelArtifacts

    evaluator = ScriptProcessor(
        image_uri=xgboost,
        command=["python3"],
        instance_type=processing_instance_type,
        instance_count=1,
        base_job_name="evaluate",
        sagemaker_session=pipeline_session,
        role=role,
    )
    report = PropertyFile(name="EvaluationReport", output_name="evaluation", path="evaluation.json")
    evaluate = ProcessingStep(
        name="EvaluateModel",
        step_args=evaluator.run(
            code=os.path.join(HERE, "evaluate.py"),
            inputs=[
                s3_input("model", artifacts, "/opt/ml/processing/model"),
                s3_input("test", outputs["test"].S3Output.S3Uri, "/opt/ml/processing/test"),
            ],
            outputs=[s3_output("evaluation", f"{base}/evaluation")],
        ),
        property_files=[report],
    )

    builder = ModelBuilder(
        s3_model_data_url=artifacts, image_uri=xgboost, sagemaker_session=pipeline_session, role_arn=role
    )
    evaluation = Join(
        on="/",
        values=[evaluate.properties.ProcessingOutputConfig.Outputs["evaluation"].S3Output.S3Uri, "evaluation.json"],
    )
    register = ModelStep(
        name="RegisterModel",
        step_args=builder.register(
            model_package_group_name=MODEL_PACKAGE_GROUP,
            content_types=["text/csv"],
            response_types=["text/csv"],
            inference_instances=["ml.t2.medium", "ml.m5.xlarge"],
            transform_instances=["ml.m5.xlarge"],
            approval_status="PendingManualApproval",
            model_metrics=ModelMetrics(
                model_statistics=MetricsSource(s3_uri=evaluation, content_type="application/json")
            ),
        ),
    )
    check = ConditionStep(
        name="CheckAccuracy",
        conditions=[
            ConditionGreaterThanOrEqualTo(
                left=JsonGet(step_name=evaluate.name, property_file=report, json_path="metrics.accuracy.value"),
                right=accuracy_threshold,
            )
        ],
        if_steps=[register],
        else_steps=[],
    )
    return Pipeline(
        name=PIPELINE_NAME,
        parameters=[processing_instance_type, training_instance_type, accuracy_threshold],
        steps=[preprocess, train, evaluate, check],
        sagemaker_session=pipeline_session,
    )


def main():
    role = get_execution_role()
    pipeline = build(role)
    pipeline.upsert(role_arn=role)
    execution = pipeline.start()
    print(f"Execution ARN: {execution.arn}")
    while True:
        description = execution.describe()
        if description["PipelineExecutionStatus"] in ("Succeeded", "Failed", "Stopped"):
            print(f"Execution {description['PipelineExecutionStatus']} {description.get('FailureReason', '')}")
            sys.exit(0 if description["PipelineExecutionStatus"] == "Succeeded" else 1)
        time.sleep(0.5)


if __name__ == "__main__":
    main()
