"""Defines the pipeline and creates it, or updates it where it is there already.

PreprocessData -> TrainModel -> EvaluateModel -> CheckAccuracy -> RegisterModel
"""
import os

import sagemaker
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sagemaker.model import Model
from sagemaker.model_metrics import MetricsSource, ModelMetrics
from sagemaker.processing import ProcessingInput, ProcessingOutput, ScriptProcessor
from sagemaker.sklearn.processing import SKLearnProcessor
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import ConditionGreaterThanOrEqualTo
from sagemaker.workflow.functions import Join, JsonGet
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.parameters import ParameterFloat, ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.properties import PropertyFile
from sagemaker.workflow.steps import CacheConfig, ProcessingStep, TrainingStep

HERE = os.path.dirname(os.path.abspath(__file__))
PIPELINE_NAME = "MLOpsPipeline"
MODEL_PACKAGE_GROUP = "mlops-pipeline-models"
PREFIX = "mlops-pipeline"


def build(session, role):
    bucket = session.default_bucket()
    region = session.boto_region_name

    processing_instance_type = ParameterString(name="ProcessingInstanceType", default_value="ml.m5.xlarge")
    training_instance_type = ParameterString(name="TrainingInstanceType", default_value="ml.m5.xlarge")
    accuracy_threshold = ParameterFloat(name="AccuracyThreshold", default_value=0.75)
    cache = CacheConfig(enable_caching=True, expire_after="30d")

    data = session.upload_data(
        os.path.join(HERE, "data", "bank-additional.csv"), bucket=bucket, key_prefix=f"{PREFIX}/data"
    )

    # 1. PreprocessData
    processor = SKLearnProcessor(
        framework_version="1.2-1",
        role=role,
        instance_type=processing_instance_type,
        instance_count=1,
        base_job_name="preprocess",
        sagemaker_session=session,
    )
    preprocess = ProcessingStep(
        name="PreprocessData",
        step_args=processor.run(
            code=os.path.join(HERE, "preprocess.py"),
            inputs=[ProcessingInput(source=data, destination="/opt/ml/processing/input")],
            outputs=[
                ProcessingOutput(output_name=name, source=f"/opt/ml/processing/{name}")
                for name in ("train", "validation", "test")
            ],
            arguments=["--test-size", "0.2"],
        ),
        cache_config=cache,
    )
    outputs = preprocess.properties.ProcessingOutputConfig.Outputs

    # 2. TrainModel
    image = sagemaker.image_uris.retrieve("xgboost", region=region, version="1.7-1")
    estimator = Estimator(
        image_uri=image,
        role=role,
        instance_type=training_instance_type,
        instance_count=1,
        output_path=f"s3://{bucket}/{PREFIX}/models",
        sagemaker_session=session,
    )
    estimator.set_hyperparameters(
        objective="binary:logistic", eval_metric="auc", num_round=100, max_depth=4, eta=0.1, subsample=0.8, seed=42
    )
    train = TrainingStep(
        name="TrainModel",
        step_args=estimator.fit(
            inputs={
                name: TrainingInput(outputs[name].S3Output.S3Uri, content_type="text/csv")
                for name in ("train", "validation")
            }
        ),
        cache_config=cache,
    )
    artifacts = train.properties.ModelArtifacts.S3ModelArtifacts

    # 3. EvaluateModel: in the XGBoost container, which can load the model
    evaluator = ScriptProcessor(
        image_uri=image,
        command=["python3"],
        role=role,
        instance_type=processing_instance_type,
        instance_count=1,
        base_job_name="evaluate",
        sagemaker_session=session,
    )
    report = PropertyFile(name="EvaluationReport", output_name="evaluation", path="evaluation.json")
    evaluate = ProcessingStep(
        name="EvaluateModel",
        step_args=evaluator.run(
            code=os.path.join(HERE, "evaluate.py"),
            inputs=[
                ProcessingInput(source=artifacts, destination="/opt/ml/processing/model"),
                ProcessingInput(source=outputs["test"].S3Output.S3Uri, destination="/opt/ml/processing/test"),
            ],
            outputs=[ProcessingOutput(output_name="evaluation", source="/opt/ml/processing/evaluation")],
        ),
        property_files=[report],
        cache_config=cache,
    )

    # 5. RegisterModel
    evaluation = Join(
        on="/",
        values=[evaluate.properties.ProcessingOutputConfig.Outputs["evaluation"].S3Output.S3Uri, "evaluation.json"],
    )
    model = Model(image_uri=image, model_data=artifacts, sagemaker_session=session, role=role)
    register = ModelStep(
        name="RegisterModel",
        step_args=model.register(
            content_types=["text/csv"],
            response_types=["text/csv"],
            inference_instances=["ml.t2.medium", "ml.m5.xlarge"],
            transform_instances=["ml.m5.xlarge"],
            model_package_group_name=MODEL_PACKAGE_GROUP,
            approval_status="PendingManualApproval",
            model_metrics=ModelMetrics(
                model_statistics=MetricsSource(s3_uri=evaluation, content_type="application/json")
            ),
        ),
    )

    # 4. CheckAccuracy: the quality gate
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
        sagemaker_session=session,
    )


def main():
    session = PipelineSession()
    role = sagemaker.get_execution_role()
    pipeline = build(session, role)
    response = pipeline.upsert(role_arn=role)
    print(f"Pipeline ARN: {response['PipelineArn']}")


if __name__ == "__main__":
    main()
