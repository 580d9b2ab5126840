"""Creates the pipeline, or updates it where it is there already; starts an execution for each data set that is named.

PreprocessData -> TuneAlgorithms -> RefitBestModel -> EvaluateBestModel -> CheckMetric -> RegisterBestModel | RegistrationFailed
"""
import argparse
import os

import sagemaker
from sagemaker.inputs import TrainingInput
from sagemaker.model_metrics import MetricsSource, ModelMetrics
from sagemaker.processing import ProcessingInput, ProcessingOutput
from sagemaker.sklearn import SKLearn, SKLearnModel
from sagemaker.sklearn.processing import SKLearnProcessor
from sagemaker.tuner import CategoricalParameter, ContinuousParameter, HyperparameterTuner, IntegerParameter
from sagemaker.workflow.condition_step import ConditionStep
from sagemaker.workflow.conditions import ConditionGreaterThanOrEqualTo
from sagemaker.workflow.fail_step import FailStep
from sagemaker.workflow.functions import Join, JsonGet
from sagemaker.workflow.model_step import ModelStep
from sagemaker.workflow.parameters import ParameterFloat, ParameterInteger, ParameterString
from sagemaker.workflow.pipeline import Pipeline
from sagemaker.workflow.pipeline_context import PipelineSession
from sagemaker.workflow.properties import PropertyFile
from sagemaker.workflow.steps import ProcessingStep, TrainingStep, TuningStep

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPTS = os.path.join(HERE, "scripts")
PIPELINE_NAME = "MultiModel"
VERSION = "1.2-1"
RANGES = {
    "RandomForest": {"n-estimators": IntegerParameter(20, 200), "max-depth": IntegerParameter(2, 12)},
    "GradientBoosting": {
        "n-estimators": IntegerParameter(20, 100),
        "learning-rate": ContinuousParameter(0.01, 0.5, scaling_type="Logarithmic"),
        "max-depth": IntegerParameter(1, 4),
    },
    "NeuralNet": {
        "hidden-layer-sizes": CategoricalParameter([8, 16, 32]),
        "alpha": ContinuousParameter(1e-5, 1.0, scaling_type="Logarithmic"),
    },
    "LogisticRegression": {"C": ContinuousParameter(0.001, 100.0, scaling_type="Logarithmic")},
    "NaiveBayes": {"var-smoothing": ContinuousParameter(1e-10, 1.0, scaling_type="Logarithmic")},
}
METRICS = [{"Name": "val_score", "Regex": "Cross-Validation Score: ([0-9.]+)"}]


def build(session, role):
    dataset = ParameterString(name="DatasetName", enum_values=["breast-cancer", "wine"])
    instance = ParameterString(name="InstanceType", default_value="ml.m5.large")
    trials = ParameterInteger(name="MaxTuningJobs", default_value=2 * len(RANGES))
    parallel = ParameterInteger(name="MaxTuningParallelJobs", default_value=2)
    metric = ParameterString(
        name="RegisterMetric", default_value="auc", enum_values=["accuracy", "precision", "recall", "f1", "auc"]
    )
    threshold = ParameterFloat(name="MinRegisterMetric", default_value=0.7)
    approval = ParameterString(name="ApprovalStatus", default_value="PendingManualApproval")

    # 1. PreprocessData
    def processor():
        return SKLearnProcessor(
            framework_version=VERSION, role=role, instance_type=instance, instance_count=1, sagemaker_session=session
        )

    preprocess = ProcessingStep(
        name="PreprocessData",
        step_args=processor().run(
            code=os.path.join(SCRIPTS, "preprocess.py"),
            arguments=["--dataset", dataset],
            outputs=[
                ProcessingOutput(output_name=name, source=f"/opt/ml/processing/{name}") for name in ("train", "test")
            ],
        ),
    )
    splits = preprocess.properties.ProcessingOutputConfig.Outputs
    training_data = {"train": TrainingInput(splits["train"].S3Output.S3Uri)}

    # 2. TuneAlgorithms
    def estimator(entry_point, **hyperparameters):
        return SKLearn(
            entry_point=entry_point, source_dir=SCRIPTS, framework_version=VERSION, role=role, instance_type=instance,
            instance_count=1, hyperparameters=hyperparameters, metric_definitions=METRICS, sagemaker_session=session,
        )

    tuner = HyperparameterTuner.create(
        estimator_dict={name: estimator("train.py", algorithm=name) for name in RANGES},
        hyperparameter_ranges_dict=RANGES,
        objective_metric_name_dict={name: "val_score" for name in RANGES},
        metric_definitions_dict={name: METRICS for name in RANGES},
        objective_type="Maximize",
        strategy="Bayesian",
        max_jobs=trials,
        max_parallel_jobs=parallel,
    )
    tune = TuningStep(
        name="TuneAlgorithms",
        step_args=tuner.fit(
            inputs={name: training_data for name in RANGES}, include_cls_metadata={name: False for name in RANGES}
        ),
    )

    # 3. RefitBestModel
    refit = TrainingStep(
        name="RefitBestModel",
        step_args=estimator(
            "refit.py", **{"best-training-job": tune.properties.BestTrainingJob.TrainingJobName}
        ).fit(training_data),
    )
    artifacts = refit.properties.ModelArtifacts.S3ModelArtifacts

    # 4. EvaluateBestModel
    report = PropertyFile(name="EvaluationReport", output_name="evaluation", path="evaluation.json")
    evaluate = ProcessingStep(
        name="EvaluateBestModel",
        step_args=processor().run(
            code=os.path.join(SCRIPTS, "evaluate.py"),
            arguments=["--register-metric", metric],
            inputs=[
                ProcessingInput(source=artifacts, destination="/opt/ml/processing/model"),
                ProcessingInput(source=splits["test"].S3Output.S3Uri, destination="/opt/ml/processing/test"),
            ],
            outputs=[ProcessingOutput(output_name="evaluation", source="/opt/ml/processing/evaluation")],
        ),
        property_files=[report],
    )

    # 5. RegisterBestModel, or RegistrationFailed
    evaluated = evaluate.properties.ProcessingOutputConfig.Outputs["evaluation"].S3Output.S3Uri
    statistics = MetricsSource(
        content_type="application/json", s3_uri=Join(on="/", values=[evaluated, "evaluation.json"])
    )
    model = SKLearnModel(
        model_data=artifacts, entry_point="inference.py", source_dir=SCRIPTS, framework_version=VERSION, role=role,
        sagemaker_session=session,
    )
    register = ModelStep(
        name="RegisterBestModel",
        step_args=model.register(
            content_types=["text/csv"],
            response_types=["text/csv"],
            inference_instances=["ml.m5.large"],
            transform_instances=["ml.m5.large"],
            model_package_group_name=Join(on="-", values=[PIPELINE_NAME, dataset]),
            model_metrics=ModelMetrics(model_statistics=statistics),
            approval_status=approval,
        ),
    )
    refuse = FailStep(
        name="RegistrationFailed",
        error_message=Join(on=" ", values=["The", metric, "of the best model on", dataset, "is less than", threshold]),
    )
    check = ConditionStep(
        name="CheckMetric",
        conditions=[
            ConditionGreaterThanOrEqualTo(
                left=JsonGet(step_name=evaluate.name, property_file=report, json_path="register_metric.value"),
                right=threshold,
            )
        ],
        if_steps=[register],
        else_steps=[refuse],
    )
    return Pipeline(
        name=PIPELINE_NAME,
        parameters=[dataset, instance, trials, parallel, metric, threshold, approval],
        steps=[preprocess, tune, refit, evaluate, check],
        sagemaker_session=session,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--start", nargs="*", default=[], help="data sets to start an execution for")
    parser.add_argument("--trials", type=int, default=2 * len(RANGES), help="training jobs of each search")
    parser.add_argument("--minimum", type=float, default=0.7, help="what the metric must reach")
    args = parser.parse_args()

    role = sagemaker.get_execution_role()
    pipeline = build(PipelineSession(), role)
    print("Pipeline:", pipeline.upsert(role_arn=role)["PipelineArn"])
    for name in args.start:
        execution = pipeline.start(
            parameters={"DatasetName": name, "MaxTuningJobs": args.trials, "MinRegisterMetric": args.minimum}
        )
        print("Execution:", execution.arn)
