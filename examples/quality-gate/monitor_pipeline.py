"""Watches an execution until it ends: python3 monitor_pipeline.py <execution-arn>"""
import sys
import time

import boto3


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: python3 monitor_pipeline.py <execution-arn>")
    arn = sys.argv[1]
    client = boto3.client("sagemaker")
    shown = {}
    while True:
        execution = client.describe_pipeline_execution(PipelineExecutionArn=arn)
        steps = client.list_pipeline_execution_steps(PipelineExecutionArn=arn, SortOrder="Ascending")
        for step in steps["PipelineExecutionSteps"]:
            if shown.get(step["StepName"]) != step["StepStatus"]:
                shown[step["StepName"]] = step["StepStatus"]
                line = f"{step['StepName']:<28} {step['StepStatus']}"
                if "EndTime" in step:
                    line += f"  ({(step['EndTime'] - step['StartTime']).total_seconds():.1f} s)"
                if "Condition" in step.get("Metadata", {}):
                    line += f"  outcome: {step['Metadata']['Condition']['Outcome']}"
                if "FailureReason" in step:
                    line += f"\n    {step['FailureReason']}"
                print(line, flush=True)
        status = execution["PipelineExecutionStatus"]
        if status in ("Succeeded", "Failed", "Stopped"):
            print(f"Execution {status}")
            if "FailureReason" in execution:
                print(execution["FailureReason"])
            sys.exit(0 if status == "Succeeded" else 1)
        time.sleep(1)


if __name__ == "__main__":
    main()
