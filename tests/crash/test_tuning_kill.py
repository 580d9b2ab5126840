"""kill -9 of the engine while it searches: no trial is lost, none is counted twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.runs import sandbox
from tests.crash.families import PLAIN, raise_clan, until

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not sandbox.probe().ok, reason=f"no sandboxes here: {sandbox.probe().sentence}"),
]
TRIALS = 6
PROGRAM = "import sys; print('score=%s;' % sys.argv[sys.argv.index('--rate') + 1], flush=True)"


def test_a_search_survives_the_deaths_of_its_engine(tmp_path: Path) -> None:
    with raise_clan(tmp_path) as clan:
        sm, s3 = clan.client("sagemaker"), clan.client("s3")
        s3.create_bucket(Bucket="tuned")
        s3.put_object(Bucket="tuned", Key="code/train.py", Body=PROGRAM)
        sm.create_hyper_parameter_tuning_job(
            HyperParameterTuningJobName="survivor",
            HyperParameterTuningJobConfig={
                "Strategy": "Bayesian",
                "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "score"},
                "ResourceLimits": {"MaxNumberOfTrainingJobs": TRIALS, "MaxParallelTrainingJobs": 2},
                "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0", "MaxValue": "1"}]},
            },
            TrainingJobDefinition={
                "AlgorithmSpecification": {
                    "TrainingImage": PLAIN,
                    "TrainingInputMode": "File",
                    "MetricDefinitions": [{"Name": "score", "Regex": "score=([0-9.e-]+);"}],
                },
                "StaticHyperParameters": {
                    "sagemaker_program": "train.py",
                    "sagemaker_submit_directory": "s3://tuned/code/",
                },
                "RoleArn": clan.keys["role_arn"],
                "OutputDataConfig": {"S3OutputPath": "s3://tuned/out"},
                "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
                "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            },
        )

        def told() -> dict:
            return sm.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName="survivor")

        for done in (0, 2, 4):
            until(lambda least=done: told()["TrainingJobStatusCounters"]["Completed"] >= least, f"{done} trials have ended")
            clan.kill("engine")
        until(lambda: told()["HyperParameterTuningJobStatus"] != "InProgress", "the search ends")

        assert told()["HyperParameterTuningJobStatus"] == "Completed", told()
        assert told()["ObjectiveStatusCounters"] == {"Succeeded": TRIALS, "Pending": 0, "Failed": 0}
        jobs = sm.list_training_jobs(NameContains="survivor", MaxResults=100)["TrainingJobSummaries"]
        trials = sm.list_training_jobs_for_hyper_parameter_tuning_job(
            HyperParameterTuningJobName="survivor", SortBy="FinalObjectiveMetricValue", SortOrder="Descending", MaxResults=100
        )["TrainingJobSummaries"]
        assert {job["TrainingJobName"] for job in jobs} == {trial["TrainingJobName"] for trial in trials}
        assert len(jobs) == TRIALS
        assert trials[0]["TrainingJobName"] == told()["BestTrainingJob"]["TrainingJobName"]
