"""demo: the main job on real data: preprocess, train, evaluate, gate, register, approve."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import penstock
from penstock import Refused, server
from penstock.cli import pipelines, world
from penstock.cli.clients import Clients
from penstock.cli.screen import screen, theirs
from penstock.cli.world import DataOption, PortOption
from penstock.runs.base import ImageError
from penstock.runs.images.environments import find_uv
from penstock.runs.images.indexes import read_indexes
from penstock.settings import Settings

console = screen()

SDK = "sagemaker>=2.240,<3"
IMAGES = ("sagemaker-scikit-learn:1.2-1-cpu-py3", "sagemaker-xgboost:1.7-1")
GROUP = "mlops-pipeline-models"


def demo(
    threshold: Annotated[float, typer.Option(help="The accuracy that the quality gate asks for.")] = 0.75,
    approve: Annotated[bool, typer.Option(help="Approve the model that was registered.")] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as a JSON object; nothing is drawn.")
    ] = False,
    data: DataOption = None,
    port: PortOption = None,
) -> None:
    """Run the main job on real data: an unmodified SageMaker SDK script, from raw data to an approved model."""
    out = Console(highlight=False, stderr=as_json, soft_wrap=True)
    settings = world.settings_at(data, port)
    folder = example_folder()
    began = time.time()
    about = world.ensure_up(settings, quiet=True)
    out.print(f"[bold]Penstock[/bold] is up at [cyan]{about['url']}[/cyan]")
    python = prepare(settings, out)
    clients = Clients(settings, about)
    out.print(
        f"\n[bold]1. Define the pipeline[/bold]   python {folder.name}/create_pipeline.py   "
        "[dim](SageMaker Python SDK v2, unmodified)[/dim]"
    )
    script = subprocess.run(
        [str(python), str(folder / "create_pipeline.py")],
        env=world.program_environment(settings, about),
        capture_output=True,
        text=True,
    )
    if script.returncode:
        raise Refused(f"create_pipeline.py ended with exit code {script.returncode}:\n{script.stderr}")
    out.print(f"   {theirs(script.stdout.strip().splitlines()[-1])}")
    out.print(f"\n[bold]2. Start it[/bold]   AccuracyThreshold={threshold}")
    arn = pipelines.start(clients, "MLOpsPipeline", [{"Name": "AccuracyThreshold", "Value": str(threshold)}])
    execution = pipelines.follow(clients, arn, as_json, settings)
    result: dict[str, Any] = {
        "PipelineExecutionArn": arn,
        "PipelineExecutionStatus": execution["PipelineExecutionStatus"],
    }
    if execution["PipelineExecutionStatus"] == "Succeeded":
        result |= outcome(clients, arn, approve, out)
    if as_json:
        result["CachedSteps"] = [step["StepName"] for step in execution["Steps"] if step["Cached"]]
    result["Seconds"] = round(time.time() - began, 1)
    if as_json:
        print(json.dumps(result, indent=2))
    elif execution["PipelineExecutionStatus"] == "Succeeded":
        tell_next(settings, arn, result, out)
    raise typer.Exit(0 if execution["PipelineExecutionStatus"] == "Succeeded" else 1)


def example_folder() -> Path:
    """The example's folder: inside the installed package, or in the checkout.

    Raises: Refused when it is in neither.
    """
    package = Path(penstock.__file__).parent
    for folder in (package / "examples" / "quality-gate", package.parent.parent / "examples" / "quality-gate"):
        if folder.is_dir():
            return folder
    raise Refused("The example quality-gate is not there: is the installation whole?")


def prepare(settings: Settings, out: Console) -> Path:
    """Builds the SDK's environment and the images side by side; gives the SDK's python."""
    images = server.images_of(settings)
    failures: list[str] = []

    def pull() -> None:
        for uri in IMAGES:
            try:
                images.pull(uri, lambda line: None)
            except ImageError as fault:
                failures.append(str(fault))

    thread = threading.Thread(target=pull)
    thread.start()
    with out.status("Preparing the SageMaker SDK and the images (the first time: downloads) ..."):
        began = time.time()
        python = sdk_python(settings)
        thread.join()
    if failures:
        raise Refused(failures[0])
    if time.time() - began > 1:
        out.print(f"   environments ready after {time.time() - began:.0f} s [dim](kept for the next time)[/dim]")
    return python


def sdk_python(settings: Settings) -> Path:
    """The python of an environment that holds the SageMaker SDK v2; made when absent.

    Raises: Refused with the installer's last words.
    """
    given = os.environ.get("PENSTOCK_DEMO_PYTHON")
    if given:
        return Path(given)
    folder = settings.data / "clients" / "sagemaker-v2"
    if (folder / ".whole").exists():
        return folder / "bin" / "python"
    uv, env = find_uv(os.environ), read_indexes(os.environ).for_uv(os.environ)  # pip's settings count too
    for command in (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), "--compile-bytecode", SDK],
    ):
        done = subprocess.run(command, capture_output=True, text=True, env=env)
        if done.returncode:
            raise Refused(f"The SageMaker SDK could not be installed: {done.stderr.strip()[-800:]}")
    (folder / ".whole").touch()
    return folder / "bin" / "python"


def outcome(clients: Clients, arn: str, approve: bool, out: Console) -> dict[str, Any]:
    """What came of the execution: metrics, model, package; approved when wanted."""
    sagemaker = clients["sagemaker"]
    steps = {
        s["StepName"]: s for s in clients.every("sagemaker", "list_pipeline_execution_steps", PipelineExecutionArn=arn)
    }
    job = sagemaker.describe_processing_job(
        ProcessingJobName=steps["EvaluateModel"]["Metadata"]["ProcessingJob"]["Arn"].rpartition("/")[2]
    )
    report = next(
        o["S3Output"]["S3Uri"] for o in job["ProcessingOutputConfig"]["Outputs"] if o["OutputName"] == "evaluation"
    )
    bucket, _, key = report.removeprefix("s3://").partition("/")
    metrics = json.load(clients["s3"].get_object(Bucket=bucket, Key=f"{key}/evaluation.json")["Body"])["metrics"]
    out.print(
        "\n[bold]3. The metrics that the script wrote[/bold]   "
        + "   ".join(f"{theirs(name)} [bold]{metric['value']:.4f}[/bold]" for name, metric in metrics.items())
    )
    training = sagemaker.describe_training_job(
        TrainingJobName=steps["TrainModel"]["Metadata"]["TrainingJob"]["Arn"].rpartition("/")[2]
    )
    model = training["ModelArtifacts"]["S3ModelArtifacts"]
    out.print(f"   model   {theirs(model)}", soft_wrap=True)
    found: dict[str, Any] = {
        "Metrics": {name: metric["value"] for name, metric in metrics.items()},
        "ModelArtifacts": model,
    }
    registered = next(
        (s["Metadata"]["RegisterModel"]["Arn"] for s in steps.values() if "RegisterModel" in s.get("Metadata", {})),
        None,
    )
    if registered is None:
        out.print(
            "\n[bold]4. The gate did not open[/bold]: the accuracy is below the threshold; no model was registered."
        )
        return found
    pending = sagemaker.list_model_packages(ModelPackageGroupName=GROUP, ModelApprovalStatus="PendingManualApproval")[
        "ModelPackageSummaryList"
    ]
    out.print(f"\n[bold]4. Registered[/bold]   {registered}   ({len(pending)} pending approval)", soft_wrap=True)
    if approve:
        sagemaker.update_model_package(
            ModelPackageArn=registered, ModelApprovalStatus="Approved", ApprovalDescription="penstock demo"
        )
    status = sagemaker.describe_model_package(ModelPackageName=registered)["ModelApprovalStatus"]
    out.print(f"[bold]5. {status}[/bold]")
    return found | {"ModelPackageArn": registered, "ModelApprovalStatus": status}


def tell_next(settings: Settings, arn: str, result: dict[str, Any], out: Console) -> None:
    out.print(f"\nDone in {result['Seconds']} s. What to try next:")
    shut = "ModelPackageArn" not in result
    gate = ("demo", "", "the gate opens") if shut else ("demo", "--threshold 0.999", "the gate stays shut")
    for command, more, why in (
        ("logs", f"{arn.rpartition('/')[2]} --step TrainModel", "what XGBoost printed"),
        gate,
        (
            "exec",
            "-- aws sagemaker list-model-packages --model-package-group-name " + GROUP,
            "any AWS client works",
        ),
        ("run", "your_pipeline.py", "your own script, unmodified"),
        ("down", "", "stop the server; everything is kept"),
    ):
        whole = f"{world.typed(command, settings)} {more}".rstrip()
        out.print(f"  [green]{theirs(whole)}[/green]   [dim]{why}[/dim]", soft_wrap=True)
