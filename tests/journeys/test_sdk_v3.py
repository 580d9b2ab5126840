"""What scripts do with the SageMaker SDK v3 beside the main job: trainers with source code, processors, resources."""

from __future__ import annotations

import io
import tarfile

import pytest

from tests.conftest import Boto
from tests.programs import Desk, Told

pytestmark = [pytest.mark.sandbox, pytest.mark.clients]
START = """
import json, logging, os
logging.basicConfig(level=logging.INFO)  # where v3 tells what the jobs print
from sagemaker.core import image_uris
from sagemaker.core.helper.session_helper import Session, get_execution_role
role, session = get_execution_role(), Session()
bucket, region = session.default_bucket(), session.boto_region_name
image = image_uris.retrieve(framework="sklearn", region=region, version="1.2-1", py_version="py3", instance_type="ml.m5.large")
"""
WAITED: dict[str, tuple[str, dict[str, str]]] = {
    "trainer": (
        """
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, InputData, SourceCode
session.upload_string_as_file_body("1\\n2\\n", bucket, "v3/train/a.csv")
trainer = ModelTrainer(
    training_image=image, role=role, base_job_name="v3-trainer",
    source_code=SourceCode(source_dir="src", entry_script="train.py", requirements="requirements.txt"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1),
    hyperparameters={"alpha": 0.5, "name": "a b"},
    input_data_config=[InputData(channel_name="train", data_source=f"s3://{bucket}/v3/train/")],
)
trainer.train(wait=True, logs=True)
job = trainer._latest_training_job
job.refresh()
print(json.dumps({"status": job.training_job_status, "model": job.model_artifacts.s3_model_artifacts}))
""",
        {
            "src___train__py": """
            import argparse, os
            import iniconfig
            parser = argparse.ArgumentParser()
            parser.add_argument("--alpha", type=float)
            parser.add_argument("--name")
            args = parser.parse_args()
            rows = open(os.path.join(os.environ["SM_CHANNEL_TRAIN"], "a.csv")).read().split()
            print("trained with", args.alpha, args.name, rows, iniconfig.__name__)
            open(os.path.join(os.environ["SM_MODEL_DIR"], "model.txt"), "w").write("model")
            """,
            "src___requirements__txt": "iniconfig\n",
        },
    ),
    "failing trainer": (
        """
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, SourceCode
trainer = ModelTrainer(
    training_image=image, role=role, base_job_name="v3-failing",
    source_code=SourceCode(source_dir="src", entry_script="train.py"),
    compute=Compute(instance_type="ml.m5.large", instance_count=1),
)
try:
    trainer.train(wait=True, logs=True)
except Exception as error:
    print(json.dumps({"kind": type(error).__name__, "told": str(error)}))
""",
        {"src___train__py": "raise RuntimeError('the columns are gone')\n"},
    ),
    "framework processor": (
        """
from sagemaker.core.processing import FrameworkProcessor
from sagemaker.core.shapes import ProcessingOutput, ProcessingS3Output
processor = FrameworkProcessor(
    image_uri=image, role=role, instance_type="ml.m5.large", instance_count=1, base_job_name="v3-framework",
)
processor.run(
    code="main_job.py", source_dir="src", requirements="requirements.txt", arguments=["--n", "3"], wait=True, logs=True,
    outputs=[ProcessingOutput(output_name="out", s3_output=ProcessingS3Output(
        s3_uri=f"s3://{bucket}/v3/out", local_path="/opt/ml/processing/out", s3_upload_mode="EndOfJob"))],
)
job = processor.jobs[-1].refresh()
print(json.dumps({"status": job.processing_job_status, "out": session.read_s3_file(bucket, "v3/out/word")}))
""",
        {
            "src___main_job__py": """
            import sys
            import iniconfig
            from beside import WORD
            print("imported", iniconfig.__name__, sys.argv[1:])
            open("/opt/ml/processing/out/word", "w").write(WORD)
            """,
            "src___beside__py": "WORD = 'the module beside'",
            "src___requirements__txt": "iniconfig==2.0.0\n",
        },
    ),
}


@pytest.fixture(scope="module")
def waited(v3: Desk) -> dict[str, Told]:
    """Scripts that wait with logs, all at once."""
    begun = {name: v3.begin(START + script, **files) for name, (script, files) in WAITED.items()}
    return {name: v3.ended(each) for name, each in begun.items()}


def test_a_trainer_runs_its_source_code_with_requirements_and_hyperparameters(waited: dict[str, Told], boto: Boto):
    told = waited["trainer"]
    assert told.result["status"] == "Completed", told
    assert "trained with 0.5 a b ['1', '2'] iniconfig" in told.err + told.out
    bucket, _, key = told.result["model"].removeprefix("s3://").partition("/")
    packed = io.BytesIO(boto("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    with tarfile.open(fileobj=packed) as tar:
        assert tar.getnames() == ["model.txt"]


def test_a_trainer_that_fails_raises_with_the_reason(waited: dict[str, Told]):
    told = waited["failing trainer"]
    assert "CalledProcessError" in told.result["told"]  # what its driver wrote to /opt/ml/output/failure
    assert "RuntimeError: the columns are gone" in told.err  # the script's own words are in the log


def test_a_framework_processor_installs_its_requirements_and_runs_in_its_folder(waited: dict[str, Told]):
    told = waited["framework processor"]
    assert told.result == {"status": "Completed", "out": "the module beside"}
    assert "imported iniconfig ['--n', '3']" in told.err + told.out
